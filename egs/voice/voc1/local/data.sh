#!/usr/bin/env bash
# Data preparation of the voice in the box: data/{tr_no_dev,dev,eval1}/{wav.scp,text,utt2spk,spk2utt}.
# Trains on speech that flite makes of transcripts and on real clips; holds out clips of both kinds.
set -euo pipefail

stage=0                   # first stage; -1: nothing to do, 0: speak the transcripts and write the data folders
stop_stage=0              # last stage
db_root=                  # folder of the real clips, metadata.csv and wavs/ (default: LJSPEECH of the environment or db.sh)
download_dir=downloads    # folder of the synthesised clips: flite/ in it
data_dir=data             # folder of the sets
train_set=tr_no_dev       # name of the training set
valid_set=dev             # name of the development set
test_sets=eval1           # name of the evaluation set
metadata=                 # transcripts to speak, id|text|normalised text (default: metadata.csv of the real clips)
num_clips=1800            # transcripts to speak
skip=24                   # transcripts to leave out at the start: those of the real clips
real_clips=true           # use the real clips as well
real_share=0.4            # part of the training list that is real clips, repeated
num_dev=2                 # real clips of the development set
num_eval=2                # real clips of the evaluation set
nj=2                      # clips to speak at once
python=python3            # Python to use

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../../.." && pwd)
# shellcheck source=../../../../utils/parse_options.sh
. "${root}/utils/parse_options.sh"
if [ $# -ne 0 ]; then
    echo "$0: unexpected argument '$1' (see $0 --help)" >&2; exit 1
fi
export PYTHONPATH="${root}${PYTHONPATH:+:${PYTHONPATH}}"

# shellcheck source=../../../../db.sh
. "${root}/db.sh"
[ "${LJSPEECH}" = downloads ] && LJSPEECH=
real=${db_root:-${LJSPEECH}}
metadata=${metadata:-${real:+${real}/metadata.csv}}
if [ -z "${metadata}" ]; then
    echo "$0: no transcripts: say where LJSpeech is by LJSPEECH=DIR or --db_root DIR, or name a file by --metadata" >&2; exit 1
fi
if "${real_clips}" && [ -z "${real}" ]; then
    echo "$0: no real clips: LJSPEECH=DIR or --db_root DIR names their folder, --real_clips false does without" >&2; exit 1
fi

if [ "${stage}" -le 0 ] && [ "${stop_stage}" -ge 0 ]; then
    here=$(dirname "${BASH_SOURCE[0]}")
    real_options=()
    if "${real_clips}"; then real_options=(--real "${real}" --real_share "${real_share}"); fi
    ${python} "${here}/make_corpus.py" --metadata "${metadata}" --output_dir "${download_dir}/flite" \
        --num "${num_clips}" --skip "${skip}" --nj "${nj}"
    ${python} "${here}/prepare_voice.py" --synthesised "${download_dir}/flite" --bundled "${root}/egs/mini/voc1/corpus" \
        "${real_options[@]}" --data_dir "${data_dir}" --train_set "${train_set}" --valid_set "${valid_set}" \
        --test_sets "${test_sets}" --num_dev "${num_dev}" --num_eval "${num_eval}"
fi
