#!/usr/bin/env bash
# The recipe as a user runs it: egs/mini in a copy of the repository, all stages with ten training steps, then again,
# then with wrong input. A few minutes on a CPU.
#
#   tests/test_recipe.sh                 with the repository's .venv, else with the active Python
#   VENV=DIR tests/test_recipe.sh        with this virtual environment
#   KEEP=true tests/test_recipe.sh       leave the copy there to look at
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${VENV:-${root}/.venv}
[ ! -d "${VENV}" ] || export PATH="${VENV}/bin:${PATH}"
unset PYTHONPATH LJSPEECH JSUT KALDI_ROOT cmd_backend CUDA_VISIBLE_DEVICES
export OMP_NUM_THREADS=1

work=$(mktemp -d)
[ "${KEEP:-}" = true ] || trap 'rm -rf "${work}"' EXIT
copy="${work}/a copy" # paths with spaces are to work
mkdir "${copy}"
tar -C "${root}" -c --exclude=./.git --exclude=./.venv --exclude='./.venv.*' --exclude=./downloads --exclude=__pycache__ \
    --exclude=./data --exclude=./dump --exclude=./exp --exclude='./egs/*/*/data' --exclude='./egs/*/*/dump' \
    --exclude='./egs/*/*/exp' --exclude='./egs/*/*/downloads' . | tar -C "${copy}" -x
cd "${copy}/egs/mini/voc1"
config=${copy}/tests/recipe/train_ten_steps.yaml
exp=exp/voc_train_ten_steps
decoded=${exp}/decode_flowavenet_valid.loss.best

passed=0
failed=0
# check <what> <command>...: counts whether the command succeeds.
check() {
    local what=$1
    shift
    if "$@" > "${work}/check.log" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED: ${what}"
        tail -n 20 "${work}/check.log"
    fi
}
options=()
# mini <option>...: the quick start; what it prints is in ${work}/out.
mini() { ./run.sh --train_config "${config}" "${options[@]}" "$@" > "${work}/out" 2>&1 || { tail -n 40 "${work}/out"; return 1; }; }
says() { grep -qF -- "$1" "${work}/out" || { echo "this was not printed: $1"; cat "${work}/out"; return 1; }; }
there() { local file; for file in "$@"; do [ -s "${file}" ] || { echo "missing or empty: ${file}"; return 1; }; done; }
lines() { local n; n=$(grep -c '' "$2"); [ "${n}" -eq "$1" ] || { echo "$2 has ${n} lines, not $1"; return 1; }; }
same_ids() { diff <(cut -d' ' -f1 "$1") <(cut -d' ' -f1 "$2"); }
# refuses <words> <command>...: the command fails and says the words.
refuses() {
    local words=$1
    shift
    if "$@" > "${work}/out" 2>&1; then echo "succeeded: $*"; return 1; fi
    says "${words}"
}
section() { echo "test_recipe.sh: $*"; }

section "all stages"
check "all stages run" mini --nj 4
check "the number of jobs is lowered" says "3 utterances: 3 jobs instead of 4"
for name in tr_no_dev dev eval1; do
    n=$([ "${name}" = tr_no_dev ] && echo 20 || echo 3)
    for file in wav.scp text utt2spk; do check "stage 0: ${name}/${file}" lines "${n}" "data/${name}/${file}"; done
    check "stage 0: ${name}/spk2utt" lines 1 "data/${name}/spk2utt"
    dump=dump/fbank/${name}
    for file in feats.scp wav.scp utt2num_samples utt2num_frames; do
        check "stage 1: ${name}/${file}" lines "${n}" "${dump}/${file}"
        check "stage 1: ids of ${name}/${file}" same_ids "data/${name}/wav.scp" "${dump}/${file}"
    done
    check "stage 1: statistics of ${name}" there "${dump}/feats_stats.npz" "${dump}/feats_extract.yaml"
done
check "stage 2: files" there ${exp}/{config.yaml,train.log,run.sh,checkpoint.pth,latest.pth,1epoch.pth,2epoch.pth} \
    ${exp}/valid.loss.{best,ave_2best}.pth
check "stage 2: steps" grep -q "2epoch results: \[train\].*loss=.*\[valid\] loss=" ${exp}/train.log
for name in dev eval1; do
    check "stage 3: list of ${name}" same_ids "data/${name}/wav.scp" "${decoded}/${name}/wav/wav.scp"
    check "stage 3: speed of ${name}" same_ids "data/${name}/wav.scp" "${decoded}/${name}/utt2rtf"
    check "stage 3: logs of ${name}" there "${decoded}/${name}"/log/vocoder_inference.{1,2}.log
    check "stage 4: files of ${name}" there "${decoded}/${name}"/scoring/{results.md,samples.png,utt2lsd,utt2log_likelihood}
    check "stage 4: table of ${name}" grep -Eq "^\| ${name} +\| 3 +\| -?[0-9.]+ ± " "${decoded}/${name}/scoring/results.md"
    check "stage 4: places of ${name}" says "${decoded}/${name}/scoring/samples.png"
done
python3 - data dump ${decoded} > "${work}/python.log" 2>&1 <<'PYTHON' || true
import sys
from pathlib import Path

import soundfile

data, dump, decoded = map(Path, sys.argv[1:])
for name in ("dev", "eval1"):
    frames = dict(line.split() for line in (dump / "fbank" / name / "utt2num_frames").read_text().splitlines())
    for line in (decoded / name / "wav/wav.scp").read_text().splitlines():
        utt, path = line.split(maxsplit=1)
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (22050, 1, "PCM_16"), (utt, info)
        assert info.frames == 256 * int(frames[utt]), (utt, info.frames, frames[utt])
print("sound is as it should be")
PYTHON
check "stage 3: the audio" grep -q "sound is as it should be" "${work}/python.log"
zip=${exp}/voc_train_ten_steps_valid.loss.best.zip
check "stage 4: report" there ${exp}/{report.html,RESULTS.md}
check "stage 4: mel inversion" grep -q "^| eval1 mel_inversion " "${decoded}/eval1/scoring/results.md"
check "stage 4: Griffin-Lim" grep -q "^| eval1 griffin_lim " "${decoded}/eval1/scoring/results.md"
check "stage 5: the zip" bash -c "python3 -m zipfile -l '${zip}' | awk 'NR > 1 {print \$1}' | LC_ALL=C sort | xargs | \
    grep -qx 'README.md config.yaml feats_stats.npz meta.yaml sample.wav samples.png valid.loss.best.pth'"
check "stage 5: the model card" grep -q "^| eval1 " ${exp}/voc_train_ten_steps_valid.loss.best_README.md

if [ -e ../../voice/voc1/voice.zip ]; then
    for name in dev eval1; do check "the voice: ${name}" lines 3 "exp/voice/${name}/wav/wav.scp"; done
    check "the voice: table" grep -q "^| eval1 voice " ${exp}/RESULTS.md
fi
options=(--trained_model "") # once is enough

section "the compact presets"
for preset in base small; do
    check "${preset}: training to scores" mini --stage 2 --stop_stage 4 --train_config ../../../conf/train_flowavenet_${preset}.yaml --tag ${preset} \
        --train_args "--max_epoch 1 --num_iters_per_epoch 2 --batch_size 2 --segment_length 4096 --num_workers 0 --sample_interval 0" \
        --test_sets eval1 --griffin_lim false --mel_inversion false --temperatures ""
    check "${preset}: table" grep -Eq "^\| eval1 .*\| 3 +\| -?[0-9.]+ ± " exp/voc_${preset}/RESULTS.md
done

section "a second run keeps what is done"
touch "${work}/mark"
check "the second run" mini --nj 4
check "training was complete" grep -q "already reached at max_epoch" ${exp}/train.log
check "nothing is extracted or decoded again" \
    bash -c "[ -z \"\$(find dump ${decoded} \( -name '*.ark' -o -name '*.wav' \) -newer '${work}/mark')\" ]"
check "training goes on where it was" mini --stage 2 --stop_stage 2 --train_args "--max_epoch 3"
check "training did go on" bash -c "grep -q 3epoch ${exp}/train.log && ! grep -q 2/3epoch ${exp}/train.log"
check "sound of other options is made anew" mini --stage 3 --stop_stage 3 --inference_args "--seed 5" \
    --inference_tag decode_flowavenet_valid.loss.best --test_sets dev
check "and it says so" grep -q "weights or options changed: [12] utterances in ${decoded}/dev are decoded anew" "${decoded}/dev/log/vocoder_inference.1.log"
check "scoring refuses it" refuses "seed is 5" mini --stage 4 --stop_stage 4 --test_sets "" --temperatures ""
check "packing refuses scores of other weights" refuses "scores.json aren't of now" \
    mini --stage 5 --inference_model 3epoch.pth --inference_tag decode_flowavenet_valid.loss.best
check "the experiment's own run.sh" "${exp}/run.sh" --stage 3 --stop_stage 3 --inference_args "--temperature 0" --n_jobs 1
check "its folder" there ${exp}/decode_flowavenet_temperature0_valid.loss.best/eval1/wav/wav.scp
check "batches of two, one job" mini --stage 3 --stop_stage 3 --test_sets dev --inference_tag batches --batch_size 2 --inference_nj 1
check "one at a time, three jobs" mini --stage 3 --stop_stage 3 --test_sets dev --inference_tag jobs --inference_nj 3
check "their logs" there ${exp}/batches/dev/log/vocoder_inference.1.log ${exp}/jobs/dev/log/vocoder_inference.3.log
check "they sound alike" python3 -c "
import sys, pathlib, numpy, soundfile
first, second = map(pathlib.Path, sys.argv[1:])
names = sorted(path.name for path in first.glob('*.wav'))
assert len(names) == 3, names
for name in names:
    a, b = (soundfile.read(folder / name, dtype='int16')[0].astype(int) for folder in (first, second))
    assert a.shape == b.shape and numpy.abs(a - b).max() <= 1, name
" ${exp}/batches/dev/wav ${exp}/jobs/dev/wav
check "no batch of zero" refuses "--batch_size must be at least 1, not 0" mini --stage 3 --batch_size 0
check "a packed model serves without training" mini --stage 3 --stop_stage 3 --download_model "${PWD}/${zip}"
check "its audio" there exp/voc_train_ten_steps_valid.loss.best/decode_flowavenet_valid.loss.best/dev/wav/wav.scp
check "a model that is there speaks before training" mini --nj 4 --stage 1 --stop_stage 1 --trained_model "old=${zip}"
check "and says where" says "${PWD}/exp/old/eval1/wav/MINI-0024.wav"
check "at its own temperature" grep -q -- "--temperature none" exp/old/dev/log/vocoder_inference.1.log
check "and joins the tables" mini --stage 3 --stop_stage 4 --temperatures "" --trained_model "old=${zip}"
check "beside natural speech and Griffin-Lim" grep -q "^| eval1 old " "${decoded}/eval1/scoring/results.md"
check "a model that isn't there" refuses "--trained_model takes name=path" mini --trained_model "old=none.zip"

section "a voice that is refined"
check "refined: decoding to packing" mini --stage 3 --refine 2 --test_sets eval1 --temperatures "" --griffin_lim false --mel_inversion false
check "refined: the sound" bash -c "[ \$(grep -c ' refine=2 ' ${exp}/decode_flowavenet_refine2_*/eval1/made_of) -eq 3 ]"
check "refined: the packed voice" bash -c "python3 -m zipfile -e '${zip}' '${work}/refined' && grep -qx 'refine: 2' '${work}/refined/config.yaml'"

section "a run of ESPnet2's tts_inference"
run=${work}/tts/exp/tts_x/decode_y/eval1
mkdir -p "${run}/norm"
sed "s| | ${PWD}/|" dump/fbank/eval1/feats.scp > "${run}/norm/feats.scp"
check "normalised features need statistics" refuses "--tts_stats" mini --stage 3 --tts_dir "${run}"
check "or the word that they aren't" mini --stage 3 --tts_dir "${run}" --tts_stats none
check "its audio" lines 3 "${decoded}/tts_x_decode_y_eval1/wav/wav.scp"
check "natural features with the same weights" mini --stage 3 --stop_stage 3
check "sound alike" cmp "${decoded}/tts_x_decode_y_eval1/wav/MINI-0024.wav" "${decoded}/eval1/wav/MINI-0024.wav"
check "no such run" refuses "--tts_dir ${work}/none: no such folder" mini --stage 3 --tts_dir "${work}/none"

section "fine-tuning on generated features"
for name in tr_no_dev dev; do
    mkdir -p "${work}/tf/${name}/denorm"
    sed "s| | ${PWD}/|" "dump/fbank/${name}/feats.scp" > "${work}/tf/${name}/denorm/feats.scp"
done
check "it trains" mini --nj 4 --stage 1 --stop_stage 2 --gta_dir "${work}/tf" --resume ${exp}/2epoch.pth --train_args "--max_epoch 1"
check "from the pairs" lines 20 dump/fbank_gta_tf-*/tr_no_dev/feats.scp
check "with its own experiment" there exp/voc_train_ten_steps_gta_tf-*/1epoch.pth
check "not from other weights" refuses "was started from" mini --stage 2 --stop_stage 2 --gta_dir "${work}/tf" --resume ${exp}/3epoch.pth
check "a set without a run" refuses "${work}/tf/eval1" \
    mini --nj 4 --stage 1 --stop_stage 1 --gta_dir "${work}/tf" --valid_set eval1

section "another corpus: rate, hop and features"
mkdir -p "${work}/jsut_ver1.1/basic5000/wav"
python3 - "${work}/jsut_ver1.1/basic5000" <<'PYTHON'
import sys
from pathlib import Path

import numpy as np
import soundfile

folder = Path(sys.argv[1])
random = np.random.default_rng(0)
names = [f"BASIC5000_{i:04d}" for i in range(1, 5)]
for name in names:
    soundfile.write(folder / "wav" / f"{name}.wav", 0.1 * random.standard_normal(48000), 48000)
(folder / "transcript_utf8.txt").write_text("".join(f"{name}:こんにちは\n" for name in names), encoding="utf-8")
PYTHON
cd ../../jsut/voc1
jsut=(./run.sh --stage 0 --stop_stage 1 --ngpu 0 --nj 1 --local_data_opts "--num_dev 1 --num_eval 1")
check "jsut: data and features" "${jsut[@]}" --db_root "${work}"
check "jsut: sets as ESPnet2 has them" bash -c "[ \"\$(cut -d' ' -f1 data/{eval1,dev,tr_no_dev}/wav.scp | xargs)\" = \
    'BASIC5000_0001 BASIC5000_0002 BASIC5000_0003 BASIC5000_0004' ]"
check "jsut: 24 kHz" grep -qx "BASIC5000_0001 24000" dump/fbank/eval1/utt2num_samples
check "jsut: 300 samples per frame" grep -qx "BASIC5000_0001 81" dump/fbank/eval1/utt2num_frames
check "jsut: no resampling unless asked" refuses "48000" "${jsut[@]}" --db_root "${work}" --resample false
check "jsut: no corpus" refuses "there is no JSUT at ${work}/none" "${jsut[@]}" --db_root "${work}/none"
cd ../../mini/voc1

section "wrong input"
check "unknown option" refuses "unknown option --nosuch" mini --nosuch 1
check "stray argument" refuses "unexpected argument 'stray'" mini stray
check "no number" refuses "--nj takes a whole number, not 'many'" mini --nj many
check "no such configuration" refuses "--train_config: no file conf/none.yaml" ./run.sh --train_config conf/none.yaml
check "no such corpus" refuses "there is no corpus at ${work}/none" mini --stage 0 --db_root "${work}/none"
mkdir "${work}/part" && cp corpus/metadata.csv "${work}/part"
check "incomplete corpus" refuses "no flac in it" mini --stage 0 --db_root "${work}/part"
check "no such devices" refuses "--ngpu needs 99 CUDA device(s)" mini --stage 2 --ngpu 99
check "no features" refuses "run stage 1 first" mini --stage 2 --dumpdir none
check "no weights" refuses "no weights exp/voc_none/valid.loss.best.pth" mini --stage 3 --tag none
check "unknown queue" refuses "cmd_backend is 'nosuch'" env cmd_backend=nosuch ./run.sh
check "a failing training shows its log" refuses "no_such_key" \
    mini --stage 2 --tag bad --train_args "--vocoder_conf no_such_key=1"
cp -r data/dev data/broken && sed -i '2s|$|.none|' data/broken/wav.scp
check "a missing recording stops stage 1" refuses "MINI-0022" mini --stage 1 --stop_stage 1 --valid_set broken
check "and the log is named" says "dump/fbank/broken/log/"
check "unless it may be left out" mini --stage 1 --stop_stage 1 --valid_set broken --skip_bad_utts true
check "then the others are there" lines 2 dump/fbank/broken/feats.scp

echo "test_recipe.sh: ${passed} passed, ${failed} failed (${SECONDS} s)"
[ "${failed}" -eq 0 ]
