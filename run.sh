#!/usr/bin/env bash
# FloWaveNet recipe, in stages: corpus, features, training, synthesis, scores. This file is the LJSpeech recipe;
# egs/<corpus>/voc1/run.sh calls it with other values.

# --- Stages and machines
stage=-1             # first stage: -1 download, 0 data, 1 features, 2 training, 3 decoding, 4 scoring, 5 packing
stop_stage=5         # last stage
skip_data_prep=false # leave out stages -1, 0 and 1
skip_train=false     # leave out stage 2
skip_eval=false      # leave out stages 3 and 4
ngpu=1               # number of GPUs for training, per machine; 0 is the CPU
num_nodes=1          # number of machines for training
nj=16                # number of parallel jobs for features
inference_nj=4       # number of parallel jobs for decoding
num_threads=4        # CPUs to ask a queue for: for each job of decoding and scoring, for each GPU of training
gpu_inference=auto   # decode and score on GPUs: true, false, or auto: if --ngpu is not 0 and there is one
recipe_dir=          # folder to work in (default: the folder of this file)
dumpdir=dump         # folder for features
expdir=exp           # folder for experiments
python=python3       # the Python to call, may have options of its own
# --- Data and features
train_set=tr_no_dev  # set to train on
valid_set=dev        # set that chooses the best weights
test_sets=eval1      # sets that are decoded and scored besides the valid set; several in quotes
db_root=             # folder that holds the corpus (default: LJSPEECH of the environment, else download_dir)
download_dir=        # folder that the corpus is downloaded to (default: downloads)
local_data_opts=     # more options for local/data.sh, in quotes
feats_extract=fbank  # features: fbank (ESPnet2's log-mel) or original (the mel of the original FloWaveNet)
fs=22050             # sampling rate in Hz
n_fft=1024           # size of the Fourier transform in samples
n_shift=256          # hop between frames in samples; must be the product of upsample_scales in train_config
win_length=null      # window in samples; null is n_fft
n_mels=80            # number of mel bands
fmin=auto            # lowest frequency of the mel bands in Hz; auto is 80 for fbank, 125 for original
fmax=7600            # highest frequency of the mel bands in Hz
resample=false       # convert recordings of another sampling rate instead of stopping
channel=             # of recordings of several channels: 0 (left), 1 (right), ... or mix, their mean (default: stop)
lang=en              # language of the corpus, for the model card
skip_bad_utts=false  # leave out what cannot be used (and list it) instead of stopping, in stages 1 and 3
# --- Training
train_config=conf/train_flowavenet.yaml # model and schedule, looked up in recipe_dir, then beside this file
train_args=          # more options for training, in quotes, e.g. "--max_epoch 10"
gta_dir=             # train on generated features: folder of the sets' runs of tts_inference with teacher forcing
tag=                 # name of the experiment, exp/voc_<tag> (default: from train_config, train_args without the schedule, gta_dir)
download_model=      # a model packed by stage 5, file or URL: used instead of training one
# --- Decoding
inference_config=conf/decode_flowavenet.yaml # decoding options, looked up as train_config is
batch_size=          # utterances decoded at once (default: from inference_config); the sound is the same
inference_args=      # more options for decoding, in quotes, e.g. "--temperature 0.6"
refine=              # iterations that refine the sound (docs/sound.md), in decoding and as the packed model's default
inference_tag=       # name of the folder of synthesised audio (default: from config, arguments and model)
inference_model=valid.loss.best.pth # weights to decode with: a file of the experiment, or any path
tts_dir=             # decode this run of ESPnet2's tts_inference, exp/tts_x/decode_y/eval1, and nothing else
tts_stats=           # feats_stats.npz of the TTS model, where its runs hold normalised features only
# --- Scoring
compare=             # other systems for the tables: "name=path name2=path2", each a wav.scp or a folder of wavs or sets
trained_model=       # a model that is there already, "name=weights, folder or zip": speaks before training, joins the tables
mel_inversion=true   # compare with the vocoder without weights (no network), synthesised from the same features
griffin_lim=true     # compare with Griffin-Lim, synthesised from the same features
leave_out=           # figures not to measure, in quotes: "distillmos dnsmos dnsmos_p808" are the slow ones
temperatures=        # decode and score at these temperatures as well, in quotes, e.g. "0.0 0.2 0.4 0.6 0.8 1.0"
# --- The same by the names of ParallelWaveGAN
n_gpus=              # as --ngpu
n_jobs=              # as --nj
conf=                # as --train_config
checkpoint=          # as --inference_model
resume=              # weights to start a new training from; an interrupted training is continued without being told

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
run_args=("$@")
# shellcheck source=utils/parse_options.sh
. "${root}/utils/parse_options.sh"
# shellcheck source=local/supervise.sh
. "${root}/local/supervise.sh" "${run_args[@]}"
set -euo pipefail

# shellcheck source=local/stage_helpers.sh
. "${root}/local/stage_helpers.sh"
runs() { [ "${stage}" -le "$1" ] && [ "${stop_stage}" -ge "$1" ]; }

check_options() {
    local name
    for name in stage stop_stage; do
        [[ ${!name} =~ ^-?[0-9]+$ ]] || die "--${name} takes a whole number, not '${!name}'"
    done
    for name in ngpu num_nodes nj inference_nj num_threads fs n_fft n_shift n_mels ${batch_size:+batch_size}; do
        [[ ${!name} =~ ^[0-9]+$ ]] || die "--${name} takes a whole number, not '${!name}'"
        [ "${name}" = ngpu ] || [ "${!name}" -gt 0 ] || die "--${name} must be at least 1, not ${!name}"
    done
    [[ ${feats_extract} =~ ^(fbank|original)$ ]] || die "--feats_extract is fbank or original, not '${feats_extract}'"
    [[ ${channel} =~ ^([0-9]+|mix)?$ ]] || die "--channel is a number from 0, or mix, not '${channel}'"
    [[ ${gpu_inference} =~ ^(true|false|auto)$ ]] || die "--gpu_inference is true, false or auto, not '${gpu_inference}'"
    for name in mel_inversion griffin_lim; do
        [[ ${!name} =~ ^(true|false)$ ]] || die "--${name} is true or false, not '${!name}'"
    done
    [[ -z ${trained_model} || ( ${trained_model} =~ ^[A-Za-z0-9_.-]+=. && -e ${trained_model#*=} ) ]] \
        || die "--trained_model takes name=path of a model that is there, not '${trained_model}'"
    [ -z "${resume}" ] || [ -e "${resume}" ] || die "--resume ${resume}: no such file or folder"
    if [ "${num_nodes}" -gt 1 ] && on_this_machine "${cuda_cmd}"; then
        die "--num_nodes ${num_nodes} needs a queue, but cmd_backend is '${cmd_backend}': see cmd.sh"
    elif [ "${num_nodes}" -gt 1 ] && [[ ${cuda_cmd} == ssh.pl* ]]; then
        die "--num_nodes ${num_nodes} is not for ssh.pl: start the processes by torchrun, see docs/training.md"
    fi
    for name in ${train_cmd%% *} ${cuda_cmd%% *} ${decode_cmd%% *}; do
        command -v "${name}" >/dev/null || die "${name} is not in PATH: it is Kaldi's, set KALDI_ROOT (see cmd.sh)"
        [[ ${name} == run.pl || ${name} == stdout.pl || ${PWD} != *[[:space:]]* ]] \
            || die "${name} can't work in a folder with a space in its name: ${PWD}"
    done
}

# local_data <more options>: the corpus' own data preparation, of the recipe or else of LJSpeech.
local_data() {
    local script
    script=$(find_file "data preparation" local/data.sh)
    # shellcheck disable=SC2086  # local_data_opts holds several words
    "${script}" "$@" --python "${python}" --train_set "${train_set}" --valid_set "${valid_set}" --test_sets "${test_sets}" \
        ${db_root:+--db_root "${db_root}"} ${download_dir:+--download_dir "${download_dir}"} ${local_data_opts} \
        || die "${script} failed"
}

download() {
    log "Stage -1: download of the corpus"
    local_data --stage -1 --stop_stage -1
}

prepare_data() {
    log "Stage 0: data preparation, writes data/{${all_sets// /,}}"
    local_data
    for name in ${all_sets}; do need "data/${name}/wav.scp" 0; done
}

extract_features() {
    local name list jobs parts out job recordings trained_on_them=()
    # Options of the command line may make another model of it: then training alone can tell.
    if runs 2 && ! "${skip_train}" && [[ ${train_args} != *--vocoder* ]]; then
        trained_on_them=(--train_config "${train_config}")
    fi
    for name in ${all_sets}; do
        out=${dumpdir}/${feats_extract}/${name}
        log "Stage 1: ${feats_extract} features of data/${name}, writes ${out}"
        need "data/${name}/wav.scp" 0
        # Where there are segments, they are the list of utterances, and wav.scp is one of recordings.
        list=$([ -e "data/${name}/segments" ] && echo segments || echo wav.scp)
        jobs=$(jobs_for "data/${name}/${list}" "${nj}")
        split_list "data/${name}/${list}" "${out}/split${jobs}" "${list%.scp}" "${jobs}"
        recordings=(--wav_scp "${out}/split${jobs}/wav.JOB.scp")
        if [ "${list}" = segments ]; then
            recordings=(--wav_scp "data/${name}/wav.scp" --segments "${out}/split${jobs}/segments.JOB.scp")
        fi
        [ -z "${channel}" ] || recordings+=(--channel "${channel}")
        rm -f "${out}"/log/extract_feats.*.log
        job_of "${train_cmd}" "${jobs}"
        # shellcheck disable=SC2086
        ${train_cmd} JOB=1:"${jobs}" "${out}/log/extract_feats.JOB.log" \
            "${job[@]}" ${python} -m flowavenet_plugin.bin.extract_feats \
            "${recordings[@]}" --output_dir "${out}/split${jobs}/JOB" --merged_dir "${out}" \
            --resample "${resample}" --skip_bad_utts "${skip_bad_utts}" "${feats_options[@]}" "${trained_on_them[@]}" \
            || fail_with_logs "feature extraction of data/${name}" "${out}"/log/extract_feats.*.log
        parts=()
        for ((i = 1; i <= jobs; i++)); do parts+=("${out}/split${jobs}/${i}"); done
        # shellcheck disable=SC2086
        ${python} -m flowavenet_plugin.bin.merge_dump --output_dir "${out}" "${parts[@]}"
        find "${out}" -maxdepth 1 -name 'split*' ! -name "split${jobs}" -exec rm -rf {} + # of another --nj
    done
}

train() {
    local kind name dump command processes=$((ngpu > 1 ? ngpu : 1))
    local options=(--config "${train_config}" "${feats_options[@]}" --feats_stats "${dumps}/${train_set}/feats_stats.npz")
    log "Stage 2: training with ${train_config}, writes ${voc_exp}; follow ${voc_exp}/train.log"
    for kind in train valid; do
        name=${kind}_set
        dump=${dumps}/${!name}
        need "${dump}/feats.scp" 1
        options+=("--${kind}_data_path_and_name_and_type" "${dump}/wav.scp,speech,sound"
            "--${kind}_data_path_and_name_and_type" "${dump}/feats.scp,feats,kaldi_ark"
            "--${kind}_shape_file" "${dump}/utt2num_samples")
    done
    if [ -n "${resume}" ] && [ ! "${resume}" -ef "${voc_exp}/checkpoint.pth" ]; then
        [ "$(basename "${resume}")" != checkpoint.pth ] || die "--resume ${resume} is another experiment's:" \
            "continue that one with its own --tag, or start this one from weights such as ${resume%checkpoint.pth}latest.pth"
        options+=(--init_param "${resume}")
    fi
    hold_experiment
    {   # a script that repeats this call from stage 2 on
        echo '#!/usr/bin/env bash'
        printf 'cd %q && exec %q' "${PWD}" "${root}/run.sh"
        printf ' %q' "${run_args[@]}" --recipe_dir "${PWD}" --stage 2
        echo ' "$@"'
    } > "${voc_exp}/run.sh"
    chmod +x "${voc_exp}/run.sh"
    command="${cuda_cmd} $(cpus_of "${cuda_cmd}" $((num_threads * processes)))"
    # shellcheck disable=SC2086  # python and train_args hold several words
    ${python} -m espnet2.bin.launch \
        --cmd "${command} --name $(basename "${voc_exp}" | tr -c '[:alnum:]._\n-' _)" --log "${voc_exp}/train.log" \
        --ngpu "${ngpu}" --num_nodes "${num_nodes}" --init_file_prefix "${voc_exp}/.dist_init_" \
        --multiprocessing_distributed true -- \
        "${root}/utils/job.sh" "${processes}" ${python} -m flowavenet_plugin.bin.vocoder_train "${options[@]}" \
        --resume true --output_dir "${voc_exp}" ${train_args} 2> "${voc_exp}/launch.log" \
        || { say_if_stopped; fail_with_logs "training" "${voc_exp}/$(started_log).log"; }
    [ -z "${held:-}" ] || exec {held}>&-
}

decode() {
    local name feats out
    for name in ${decode_sets}; do
        feats=${dumpdir}/${feats_extract}/${name}
        out=${voc_exp}/${inference_tag}/${name}
        log "Stage 3: decoding of ${feats} with ${model_file}, writes ${out}"
        need "${feats}/feats.scp" 1
        synthesise "${out}" "${feats}/feats.scp" --scp "${feats}/feats.scp"
    done
}

# The model of --trained_model, with the held-out clips: what it says is there before any training.
speak_first() {
    local name out model_file=${trained_model#*=} inference_args="--temperature none" # the model's own
    for name in ${decode_sets}; do
        out=${expdir}/${trained_model%%=*}/${name}
        need "${dumpdir}/${feats_extract}/${name}/feats.scp" 1
        log "Speech of ${name} by ${model_file}, writes ${out}/wav"
        synthesise "${out}" "${dumpdir}/${feats_extract}/${name}/feats.scp" --scp "${dumpdir}/${feats_extract}/${name}/feats.scp"
        find "${PWD}/${out}/wav" -name '*.wav' | sort
    done
}

decode_tts() {
    local list run out
    [ -d "${tts_dir}" ] || die "--tts_dir ${tts_dir}: no such folder in ${PWD}"
    tts_dir=$(cd "${tts_dir}" && pwd)
    list=${tts_dir}/denorm/feats.scp
    [ -e "${list}" ] || list=${tts_dir}/norm/feats.scp
    [ -s "${list}" ] || die "--tts_dir ${tts_dir} holds neither denorm/feats.scp nor norm/feats.scp"
    run=${tts_dir%/*} # exp/tts_x/decode_y of exp/tts_x/decode_y/eval1
    out=${voc_exp}/${inference_tag}/$(basename "${run%/*}")_${run##*/}_${tts_dir##*/}
    log "Stage 3: decoding of ${list} with ${model_file}, writes ${out}"
    synthesise "${out}" "${list}" --tts_dir "${tts_dir}" ${tts_stats:+--tts_stats "${tts_stats}"}
    log "Finished: ${PWD}/${out}/wav, real-time factor $(awk '{sum += $2} END {print sum / NR}' "${out}/utt2rtf")"
}

score() {
    local name out options pair tables="" job
    job_of "${inference_cmd}" 1
    for name in ${decode_sets}; do
        out=${voc_exp}/${inference_tag}/${name}
        log "Stage 4: scoring of ${out}, writes ${out}/scoring"
        need "${out}/wav/wav.scp" 3
        options=(--inference_config "${inference_config}" "--inference_args=${inference_args}")
        [ ! -e "${voc_exp}/train.log" ] || options+=(--train_log "${voc_exp}/train.log")
        [ ! -e "data/${name}/text" ] || options+=(--text "data/${name}/text")
        ! "${mel_inversion}" || options+=(--mel_inversion)
        ! "${griffin_lim}" || options+=(--griffin_lim)
        # Names begin after a space and end in "=": a path may hold spaces.
        while read -r pair; do [ -z "${pair}" ] || options+=(--compare "${pair}"); done \
            < <(sed -E 's/ +([A-Za-z0-9_.-]+=)/\n\1/g' <<< "${compare}")
        [ -z "${trained_model}" ] || options+=(--compare "${trained_model%%=*}=${expdir}/${trained_model%%=*}")
        # shellcheck disable=SC2086
        ${inference_cmd} "${out}/scoring/evaluate.log" "${job[@]}" ${python} -m flowavenet_plugin.bin.evaluate \
            --ref_scp "${dumpdir}/${feats_extract}/${name}/wav.scp" --gen_scp "${out}/wav/wav.scp" \
            --feats_scp "${dumpdir}/${feats_extract}/${name}/feats.scp" --model_file "${model_file}" \
            --utt2rtf "${out}/utt2rtf" "${options[@]}" ${leave_out:+--leave_out ${leave_out}} --title "${voc_exp##*/}" --output_dir "${out}/scoring" \
            --ngpu "${inference_ngpu}" || fail_with_logs "scoring of ${name}" "${out}/scoring/evaluate.log"
        tables+=$(grep '^|' "${out}/scoring/results.md")$'\n'
    done
    [ -z "${temperatures}" ] || sweep_temperatures
    make_report
    awk '!seen[$0]++' <<< "${tables%$'\n'}" # the sets as rows below one heading
    for name in ${decode_sets}; do
        out=$(cd "${voc_exp}/${inference_tag}/${name}" && pwd)
        printf '%s\n' "${name}:" "  audio    ${out}/wav" "  picture  ${out}/scoring/samples.png" \
            "  scores   ${out}/scoring/results.md"
    done
    echo "report, to listen and look: $(cd "${voc_exp}" && pwd)/report.html"
}

ngpu=${n_gpus:-${ngpu}}
nj=${n_jobs:-${nj}}
train_config=${conf:-${train_config}}
inference_model=${checkpoint:-${inference_model}}
[ $# -eq 0 ] || die "unexpected argument '$1' (see ${0} --help)"

cd "${recipe_dir:-${root}}"
# shellcheck source=cmd.sh
. "$(find_file "job commands" ./cmd.sh)" # not one in PATH
# shellcheck source=path.sh
. "$(find_file environment ./path.sh)"
check_options

if [ "${fmin}" = auto ]; then [ "${feats_extract}" = fbank ] && fmin=80 || fmin=125; fi
feats_options=(--feats_extract "${feats_extract}")
for pair in "fs=${fs}" "n_fft=${n_fft}" "hop_length=${n_shift}" "win_length=${win_length}" "n_mels=${n_mels}" \
    "fmin=${fmin}" "fmax=${fmax}"; do
    feats_options+=(--feats_extract_conf "${pair}")
done

# The valid set is decoded and scored as well; named in test_sets, too, it counts once.
test_sets=$(for name in ${test_sets}; do [ "${name}" = "${valid_set}" ] || echo "${name}"; done | xargs)
decode_sets="${valid_set}${test_sets:+ ${test_sets}}"
all_sets="${train_set} ${decode_sets}"

[ -z "${refine}" ] || inference_args+=" --refine ${refine}"
train_config=$(find_file --train_config "${train_config}")
inference_config=$(find_file --inference_config "${inference_config}")
dumps=${dumpdir}/${feats_extract} # what is trained on
[ -z "${gta_dir}" ] || dumps+=_gta_$(place_tag "${gta_dir}" "${tts_stats}")
if [ -n "${download_model}" ]; then
    skip_train=true
    voc_exp=${expdir}/$(basename "${download_model}" .zip)
else
    if [ -z "${tag}" ]; then
        tag=$(basename "${train_config}" .yaml)$([ "${feats_extract}" = fbank ] || echo "_${feats_extract}")
        tag+=${gta_dir:+_gta_${dumps##*_gta_}}$(options_tag "$(without_schedule "${train_args}")")
    fi
    voc_exp=${expdir}/voc_${tag}
fi

if runs 2 && ! "${skip_train}"; then check_devices --ngpu "${ngpu}"; fi
inference_cmd="${decode_cmd} $(cpus_of "${decode_cmd}" "${num_threads}")"
inference_ngpu=0
if { runs 3 || runs 4; } && ! "${skip_eval}" && [ "${gpu_inference}" != false ] && [ "${gpu_inference}${ngpu}" != auto0 ]; then
    if [ "${gpu_inference}" = true ]; then check_devices --gpu_inference 1; fi
    if (check_devices --gpu_inference 1) 2> /dev/null; then
        inference_cmd="${cuda_cmd} $(cpus_of "${cuda_cmd}" "${num_threads}") --gpu 1"
        inference_ngpu=1
    fi
fi

if ! "${skip_data_prep}"; then
    if runs -1; then download; fi
    if runs 0; then prepare_data; fi
    if runs 1; then
        extract_features
        if [ -n "${gta_dir}" ]; then align_generated; fi
    fi
fi
if [ -n "${trained_model}" ] && { runs 1 || runs 3 || runs 4; } && [ -z "${tts_dir}" ]; then speak_first; fi
if runs 2 && ! "${skip_train}"; then train; fi

if runs 3 || runs 4 || runs 5; then
    if [ -n "${download_model}" ]; then
        fetch_model
        [[ " ${packed} " == *" ${inference_model} "* ]] || inference_model=${packed}
    fi
    model_file=${voc_exp}/${inference_model}
    [[ ${inference_model} != */* || -e ${model_file} ]] || model_file=${inference_model} # a path
    [ -e "${model_file}" ] || die "no weights ${model_file}: run stage 2 first, or name others by --inference_model" \
        "(there are: $(cd "${voc_exp}" 2>/dev/null && echo ./*.pth))"
    if [ -z "${inference_tag}" ]; then
        inference_tag=$(basename "${inference_config}" .yaml)$(options_tag "${inference_args}")_$(basename "${model_file}" .pth)
        [ "${model_file}" = "${voc_exp}/${inference_model}" ] || inference_tag+=-$(checksum "$(realpath -m "${model_file}")")
    fi
    if [ -n "${tts_dir}" ]; then
        runs 3 || die "--tts_dir is decoded by stage 3, but --stage ${stage} --stop_stage ${stop_stage} leave it out"
        decode_tts
        exit 0
    fi
    if ! "${skip_eval}"; then
        if runs 3; then decode; fi
        if runs 4; then score; fi
    fi
    if runs 5; then pack; fi
fi
log "Finished."
