#!/usr/bin/env bash
# The quick start: every stage on the bundled corpus (26 clips, 2 minutes of speech) with a small model, on a CPU.
# Where ../../voice/voc1/voice.zip is there, that voice says the held-out clips first. Makes the Python environment before
# all if there is none. Takes all options of the top run.sh.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"
top=$(cd ../../.. && pwd)

options=(
    --recipe_dir "${PWD}"
    --stage 0
    --ngpu 0
    --temperatures "0.5 1"
    --nj 2
    --inference_nj 2
    --train_config conf/train_flowavenet_mini.yaml
    "$@"
)
voice=../../voice/voc1/voice.zip
[ ! -e "${voice}" ] || options=(--trained_model "voice=${voice}" "${options[@]}")
# Wrong options are found here, not after the minutes that the environment takes.
for word in "$@"; do [[ ${word} != --help && ${word} != -h ]] || exec "${top}/run.sh" "${options[@]}"; done
"${top}/run.sh" "${options[@]}" --help > /dev/null

# With --python, run.sh says what that one lacks.
# shellcheck source=../../../path.sh
[[ " $* " == *" --python"[\ =]* ]] || (. "${top}/path.sh") 2> /dev/null || "${top}/local/setup_env.sh"
exec "${top}/run.sh" "${options[@]}"
