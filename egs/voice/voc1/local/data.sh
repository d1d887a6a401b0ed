#!/usr/bin/env bash
# Data preparation of the voice in the box: data/{tr_no_dev,dev,eval1}/{wav.scp,text,utt2spk,spk2utt}.
# Kerstin's corpus is found or downloaded as in egs/kerstin/voc1; clips of LJSpeech join it where there are some.
set -euo pipefail

stage=0                   # first stage; -1: find or download Kerstin's corpus, 0: also write the data folders
stop_stage=0              # last stage
db_root=                  # folder of LJSpeech's clips, metadata.csv and wavs/ (default: LJSPEECH of the environment or db.sh; none)
kerstin=                  # folder of Kerstin's corpus (default: KERSTIN of the environment or db.sh, else it is downloaded)
download_dir=downloads    # where it is downloaded to
data_dir=data             # folder of the sets
train_set=tr_no_dev       # name of the training set
valid_set=dev             # name of the development set
test_sets=eval1           # name of the evaluation set
num_train=760             # Kerstin's utterances for training
kerstin_held_out=20       # those of each held-out set, which follow
lj_share=0.25             # part of the training list that is LJSpeech, repeated
num_dev=2                 # clips of LJSpeech in the development set
num_eval=2                # clips of LJSpeech in the evaluation set
download_opts=            # more options for finding Kerstin's corpus, in quotes
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
clips=${db_root:-${LJSPEECH}}
# shellcheck disable=SC2086  # download_opts holds several words
kerstin=$("${root}/egs/kerstin/voc1/local/data.sh" --stage -1 --stop_stage -1 --python "${python}" \
    --download_dir "${download_dir}" ${kerstin:+--db_root "${kerstin}"} ${download_opts})

if [ "${stage}" -le 0 ] && [ "${stop_stage}" -ge 0 ]; then
    ${python} "$(dirname "${BASH_SOURCE[0]}")/prepare_voice.py" --kerstin "${kerstin}" ${clips:+--lj "${clips}"} \
        --num_train "${num_train}" --kerstin_held_out "${kerstin_held_out}" --lj_share "${lj_share}" \
        --data_dir "${data_dir}" --train_set "${train_set}" --valid_set "${valid_set}" \
        --test_sets "${test_sets}" --num_dev "${num_dev}" --num_eval "${num_eval}"
fi
