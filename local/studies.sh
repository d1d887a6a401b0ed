#!/usr/bin/env bash
# The paper's studies: trains, decodes and scores its model (conf/train_flowavenet.yaml) and variants of it that differ in
# one thing each (conf/tuning/train_flowavenet_<study>.yaml), then compares them in one table and on one page.
#
#   local/studies.sh --ngpu 4                        LJSpeech, four trainings of the paper's size
#   local/studies.sh --studies causal --ngpu 4       the paper's model and one study
#   egs/mini/voc1/local/studies.sh                   the bundled corpus, small, on a CPU
#
# Every other option is one of run.sh's and goes to each of its calls; training and decoding that are done are kept.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
run="${root}/run.sh"
studies="causal singlescale additive"
tag=study
expdir=exp # only to find the audio again: run.sh gets it, too
options=()
while [ $# -gt 0 ]; do
    [[ $1 != --*=* ]] || set -- "${1%%=*}" "${1#*=}" "${@:2}"
    case $1 in
        --help | -h) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exec "${run}" --help ;;
        --train_config | --conf | --compare | --inference_tag)
            echo "$0: error: $1 is set here, for each study (see $0 --help)" >&2; exit 1 ;;
    esac
    [ $# -gt 1 ] || { echo "$0: error: option $1 needs a value (see $0 --help)" >&2; exit 1; }
    case $1 in
        --studies) studies=$2 ;;
        --tag) tag=$2 ;;
        --expdir) expdir=$2; options+=("$1" "$2") ;;
        *) options+=("$1" "$2") ;;
    esac
    shift 2
done
for study in ${studies}; do
    [ -f "${root}/conf/tuning/train_flowavenet_${study}.yaml" ] || {
        echo "$0: error: --studies: no conf/tuning/train_flowavenet_${study}.yaml in ${root}" >&2; exit 1
    }
done

# study <name> <configuration> <option>...: the stages of one model
study() {
    local name=$1 config=$2
    shift 2
    "${run}" ${options[@]+"${options[@]}"} --train_config "${root}/${config}" --tag "${tag}_${name}" --inference_tag study "$@"
}

compare=""
for study in ${studies}; do
    study "${study}" "conf/tuning/train_flowavenet_${study}.yaml" --stop_stage 4 --griffin_lim false --mel_inversion false # compared below
    options+=(--skip_data_prep true) # once is enough
    compare+="${study}=${expdir}/voc_${tag}_${study}/study "
done
study paper conf/train_flowavenet.yaml --stop_stage 4 --compare "${compare% }"
