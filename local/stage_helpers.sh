#!/usr/bin/env bash
# Functions for the stages of run.sh, which sources this file. They use its variables.
# shellcheck disable=SC2154

log() { echo "$(date '+%Y-%m-%dT%H:%M:%S') (run.sh) $*"; }
die() { echo "run.sh: error: $*" >&2; exit 1; }

# fail_with_logs <what failed> <log>...: the end of the logs of failed jobs (three at most), their paths, exit 1. Their last
# lines are run.pl's, or those of Kaldi's scripts for queues.
fail_with_logs() {
    local what=$1 file shown=0
    shift
    for file in "$@"; do
        if [ -f "${file}" ] && ! tail -n 1 "${file}" | grep -Eq '^# (Ended \(code 0\)|Finished at .* with status 0$)' && [ $((shown += 1)) -le 3 ]; then
            { echo "----- the end of ${file}:"; tail -n 25 "${file}"; echo "-----"; } >&2
        fi
    done
    [ -f "$1" ] || [ "${shown}" -gt 0 ] || die "${what} failed before there was a log in $(dirname "$1")/: see above"
    die "${what} failed, see the logs above ($(dirname "$1")/)"
}

# Prints which log tells why training failed: train, or launch if the job didn't start (a train.log is then an earlier run's).
started_log() {
    if grep -q 'log file:' "${voc_exp}/launch.log" && [ -e "${voc_exp}/train.log" ]; then echo train; else echo launch; fi
}

# find_file <what it is> <path>: the path as seen from recipe_dir, else from the top folder.
find_file() {
    if [ -e "$2" ]; then echo "$2"
    elif [[ $2 != /* && -e ${root}/$2 ]]; then echo "${root}/$2"
    else die "$1: no file $2 in ${PWD}$([[ $2 == /* ]] || echo " or ${root}")"; fi
}

# need <file> <stage>: stops unless the file is there and not empty.
need() { [ -s "$1" ] || die "$1 in ${PWD} is missing or empty: run stage $2 first"; }

# jobs_for <list> <wanted>: the number of jobs, lowered to the number of utterances.
jobs_for() {
    local lines
    lines=$(LC_ALL=C grep -ac '[^[:space:]]' "$1") || die "no utterances in $1"
    if [ "$2" -gt "${lines}" ]; then
        log "$1 has ${lines} utterances: ${lines} jobs instead of $2" >&2
        echo $((lines))
    else
        echo "$2"
    fi
}

# split_list <list> <folder> <name> <n>: folder/name.1.scp ... name.n.scp, without a byte order mark and blank lines
split_list() {
    local parts=() i
    mkdir -p "$2"
    for ((i = 1; i <= $4; i++)); do parts+=("$2/$3.${i}.scp"); done
    LC_ALL=C sed -e '1s/^\xef\xbb\xbf//' -e '/^[[:space:]]*$/d' "$1" > "$2/$3.scp"
    split_scp.pl "$2/$3.scp" "${parts[@]}"
}

# on_this_machine <command>: whether a command of cmd.sh runs its jobs here.
on_this_machine() { [[ $1 == run.pl* || $1 == stdout.pl* ]]; }

# job_of <command> <n>: the command's n jobs start by these words, which give each its share of the CPUs. A job of a queue
# has those that it asked for; by ssh.pl the jobs are dealt to the machines in turn.
job_of() {
    local jobs=1 machines
    if on_this_machine "$1"; then
        jobs=$2
    elif [[ $1 == ssh.pl* ]]; then
        machines=$(grep -c . .queue/machines || true)
        jobs=$((machines > 0 ? ($2 + machines - 1) / machines : $2))
    fi
    job=("${root}/utils/job.sh" "${jobs}")
}

# cpus_of <command> <n>: the option by which a queue is asked for n CPUs for each job
cpus_of() { [[ ! $1 =~ ^(slurm|queue|pbs)\.pl ]] || echo "--num_threads $2"; }
# checksum <text>: eight hexadecimal digits
checksum() { printf '%08x' "$(printf %s "$1" | cksum | cut -d ' ' -f 1)"; }

# options_tag <options>: options as part of a folder's name. What that can't tell apart a checksum does.
options_tag() {
    local words text
    read -r -d "" -a words <<< "$1" || true # line breaks are spaces
    text="${words[*]}"
    sed -e 's/--/_/g' -e 's/[^[:alnum:]._-]//g' <<< "${text}" | tr -d '\n'
    [[ ${text} =~ ^(\ ?--[a-z_]+\ ([0-9.]+|true|false))*$ ]] || printf -- '-%s' "$(checksum "${text}")"
}

# place_tag <folder> [<more>]: a place as part of a folder's name
place_tag() { printf '%s-%s' "$(basename "$1")" "$(checksum "$(realpath -m "$1") ${2:-}")"; }

# without_schedule <options>: what of the options of training makes an experiment. A run takes up the others on its way:
# how long it is, its learning rate, what it shows and keeps.
without_schedule() {
    local words word kept=() keep=true i
    read -r -d "" -a words <<< "$1" || true # line breaks are spaces
    for ((i = 0; i < ${#words[@]}; i++)); do
        word=${words[i]}
        if [[ ${word} == --* ]]; then
            keep=true
            case ${word}=${words[i + 1]:-} in
                --max_epoch=* | --patience=* | --lr_halvings=* | --optim_conf=lr=* | --max_skipped=* | --keep_nbest_models=* | \
                    --log_interval=* | --log_level=* | --num_workers=* | --sample_interval=* | --num_samples=*) keep=false ;;
            esac
        fi
        ! "${keep}" || kept+=("${word}")
    done
    echo "${kept[*]}"
}

# Another training's logs must not be moved away, nor its run.sh replaced. Of two run.sh that start at once one holds the
# experiment first, until its training is over; training, which may be started without run.sh, has a lock of its own and
# asks again.
hold_experiment() {
    local status=0 file
    mkdir -p "${voc_exp}"
    command -v flock > /dev/null || return 0
    exec {held}>> "${voc_exp}/.run.lock"
    for file in .lock .run.lock; do
        [ -e "${voc_exp}/${file}" ] || continue
        if [ "${file}" = .run.lock ]; then flock -n "${held}" || status=$?
        else flock -n "${voc_exp}/${file}" true || status=$?; fi
        # Other states than 1 are of file systems without locks.
        [ "${status}" -ne 1 ] || die "another training writes to ${voc_exp}: $(cat "${voc_exp}/${file}"). Wait for it," \
            "stop it, or take another --tag"
    done
    echo "process $$ on ${HOSTNAME}, started $(date '+%Y-%m-%d %H:%M:%S')" > "${voc_exp}/.run.lock"
}

# A training that was stopped by a signal has saved and is no failure: says so, and ends as the signal would have done.
say_if_stopped() {
    local name
    name=$(tail -n 100 "${voc_exp}/train.log" 2> /dev/null | grep -o 'Training was stopped by SIG[A-Z0-9]*' | tail -n 1) || return 0
    log "${name}, and has saved: the same command goes on from there"
    exit $((128 + $(kill -l "${name##*SIG}")))
}

# check_devices <option> <n>: on this machine there must be so many CUDA devices; a queue's machines are not looked at.
check_devices() {
    [ "$2" -gt 0 ] && on_this_machine "${cuda_cmd}" || return 0
    local found
    found=$(${python} -c 'import torch; print(torch.cuda.device_count())') || die "'${python}' cannot import torch"
    [ "${found}" -ge "$2" ] || die "$1 needs $2 CUDA device(s), but PyTorch sees ${found}: look at nvidia-smi and" \
        "CUDA_VISIBLE_DEVICES, or use the CPU (--ngpu 0 --gpu_inference false)"
}

# synthesise <folder> <list> <option of the input>...: decodes what is in the list, in parallel jobs
synthesise() {
    local out=$1 list=$2 jobs job
    shift 2
    jobs=$(jobs_for "${list}" "${inference_nj}")
    job_of "${inference_cmd}" "${jobs}"
    split_list "${list}" "${out}/log" keys "${jobs}"
    rm -f "${out}"/log/vocoder_inference.*.log
    # shellcheck disable=SC2086
    ${inference_cmd} JOB=1:"${jobs}" "${out}/log/vocoder_inference.JOB.log" \
        "${job[@]}" ${python} -m flowavenet_plugin.bin.vocoder_inference \
        "$@" --key_file "${out}/log/keys.JOB.scp" --model_file "${model_file}" \
        --output_dir "${out}" --config "${inference_config}" --ngpu "${inference_ngpu}" --skip_bad_utts "${skip_bad_utts}" \
        ${batch_size:+--batch_size "${batch_size}"} ${inference_args} \
        || fail_with_logs "decoding of ${list}" "${out}"/log/vocoder_inference.*.log
}

# Stage 1 with --gta_dir: generated features beside the natural recordings, of the sets that training reads.
align_generated() {
    local name out
    for name in "${train_set}" "${valid_set}"; do
        out=${dumps}/${name}
        log "Stage 1: generated features ${gta_dir}/${name}, writes ${out}"
        # shellcheck disable=SC2086
        ${python} -m flowavenet_plugin.bin.align_feats --tts_dir "${gta_dir}/${name}" \
            ${tts_stats:+--tts_stats "${tts_stats}"} --dump_dir "${dumpdir}/${feats_extract}/${name}" \
            --output_dir "${out}" || die "${gta_dir}/${name} and data/${name} don't fit, see above"
    done
}

# Stage 4 with --temperatures: decodes and scores at each; a table and a picture of all.
sweep_temperatures() {
    local job
    log "Stage 4: temperatures ${temperatures}, writes ${voc_exp}/sweep"
    job_of "${inference_cmd}" 1
    # shellcheck disable=SC2086
    ${inference_cmd} "${voc_exp}/sweep/sweep.log" "${job[@]}" ${python} -m flowavenet_plugin.bin.sweep \
        --model_file "${model_file}" --dump_dir "${dumpdir}/${feats_extract}" --experiment "${voc_exp}" \
        --sets ${decode_sets} --temperatures ${temperatures} --inference_config "${inference_config}" \
        "--inference_args=${batch_size:+--batch_size ${batch_size} }${inference_args}" \
        ${leave_out:+--leave_out ${leave_out}} --ngpu "${inference_ngpu}" || fail_with_logs "scoring at temperatures" "${voc_exp}/sweep/sweep.log"
    sed -n '/^|/p' "${voc_exp}/sweep/sweep.md"
}

# Stage 4: all that was scored of the experiment as one page.
make_report() {
    local job
    log "Stage 4: report, writes ${voc_exp}/{report.html,RESULTS.md}"
    job_of "${decode_cmd}" 1
    # shellcheck disable=SC2086
    ${decode_cmd} "${voc_exp}/report.log" "${job[@]}" ${python} -m flowavenet_plugin.bin.report --experiment "${voc_exp}" \
        --inference_tag "${inference_tag}" || fail_with_logs "the report" "${voc_exp}/report.log"
}

# Stage 5.
pack() {
    local corpus=ljspeech out options
    [ -z "${recipe_dir}" ] || corpus=$(basename "$(dirname "${PWD}")") # egs/<corpus>/voc1
    out=${voc_exp}/${voc_exp##*/}_$(basename "${model_file}" .pth).zip
    log "Stage 5: packing, writes ${out} in the format of espnet2.bin.pack, and its model card"
    options=(--model_file "${model_file}" --outpath "${out}" --results_dir "${voc_exp}/${inference_tag}"
        --corpus "${corpus}" --lang "${lang}")
    [ -z "${refine}" ] || options+=(--refine "${refine}")
    [ ! -e conf/card.md ] || options+=(--notes conf/card.md) # the recipe's own words on its data
    # shellcheck disable=SC2086
    ${python} -m flowavenet_plugin.bin.pack "${options[@]}" || die "packing of ${model_file} failed, see above"
}

# Unpacks a model of stage 5 into an experiment of its own; sets packed to the names of its weights, as an earlier model
# may lie in the same folder.
fetch_model() {
    local zip=${download_model}
    [ ! -e "${voc_exp}/checkpoint.pth" ] || die "--download_model ${download_model}: ${voc_exp} is an experiment that was" \
        "trained here, which it would replace: rename the zip file"
    mkdir -p "${voc_exp}"
    if [[ ${zip} == *://* ]]; then
        zip=${voc_exp}/model.zip
        log "Downloading ${download_model} to ${zip}"
        # shellcheck disable=SC2086
        ${python} -c 'import sys; from urllib.request import urlretrieve; urlretrieve(*sys.argv[1:])' \
            "${download_model}" "${zip}.part"
        mv "${zip}.part" "${zip}"
    fi
    # shellcheck disable=SC2034,SC2086
    packed=$(${python} -c 'import sys, zipfile; print(*(n for n in zipfile.ZipFile(sys.argv[1]).namelist() if n.endswith(".pth")))' \
        "${zip}") || die "--download_model ${download_model}: not a zip file"
    # shellcheck disable=SC2086
    ${python} -m zipfile -e "${zip}" "${voc_exp}" || die "--download_model ${download_model} can't be unpacked to ${voc_exp}"
}
