#!/usr/bin/env bash
# Data preparation of the bundled corpus: data/{tr_no_dev,dev,eval1}/{wav.scp,text,utt2spk,spk2utt}.
set -euo pipefail

stage=0              # first stage; -1: download (nothing to do), 0: write the data folders
stop_stage=0         # last stage
db_root=corpus       # folder with metadata.csv and flac/
data_dir=data        # folder of the sets
train_set=tr_no_dev  # name of the training set
valid_set=dev        # name of the development set
test_sets=eval1      # name of the evaluation set
num_dev=3            # utterances of the development set
num_eval=3           # utterances of the evaluation set, the last ones
python=python3       # Python to use

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../../.." && pwd)
# shellcheck source=../../../../utils/parse_options.sh
. "${root}/utils/parse_options.sh"
if [ $# -ne 0 ]; then
    echo "$0: unexpected argument '$1' (see $0 --help)" >&2; exit 1
fi

if [ "${stage}" -le 0 ] && [ "${stop_stage}" -ge 0 ]; then
    ${python} "${root}/local/prepare_ljspeech.py" --corpus "${db_root}" --audio "flac/{id}.flac" --speaker slt \
        --data_dir "${data_dir}" --train_set "${train_set}" --valid_set "${valid_set}" --test_sets "${test_sets}" \
        --num_dev "${num_dev}" --num_eval "${num_eval}"
else
    echo "$0: the corpus comes with the recipe, there is nothing to download" >&2
fi
