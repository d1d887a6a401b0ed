#!/usr/bin/env bash
# Data preparation of JSUT's basic5000: data/{tr_no_dev,dev,eval1}/{wav.scp,text,utt2spk,spk2utt}.
# The corpus is taken from --db_root, or $JSUT, or --download_dir (in each: jsut_ver1.1, basic5000, or their parent).
set -euo pipefail

stage=0                 # first stage; -1: find the corpus, 0: also write the data folders
stop_stage=0            # last stage
db_root=                # folder of the corpus
download_dir=downloads  # where the corpus is looked for otherwise
data_dir=data           # folder of the sets
train_set=tr_no_dev     # name of the training set
valid_set=dev           # name of the development set
test_sets=eval1         # name of the evaluation set
num_dev=250             # utterances of the development set, which follow those of the evaluation set
num_eval=250            # utterances of the evaluation set, the first ones
python=python3          # Python to use

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../../.." && pwd)
# shellcheck source=../../../../utils/parse_options.sh
. "${root}/utils/parse_options.sh"
if [ $# -ne 0 ]; then
    echo "$0: unexpected argument '$1' (see $0 --help)" >&2; exit 1
fi

# shellcheck source=../../../../db.sh
. "${root}/db.sh"
[ "${JSUT}" = downloads ] && JSUT=
base=${db_root:-${JSUT:-${download_dir}}}
for corpus in "${base}/jsut_ver1.1/basic5000" "${base}/basic5000" "${base}"; do
    [ ! -e "${corpus}/transcript_utf8.txt" ] || break
done
if [ ! -e "${corpus}/transcript_utf8.txt" ]; then
    echo "$0: there is no JSUT at ${base} (looked for jsut_ver1.1/basic5000/transcript_utf8.txt). It is at" \
        "https://sites.google.com/site/shinnosuketakamichi/publication/jsut; unpack it and say where it is by JSUT=DIR" \
        "or --db_root DIR" >&2
    exit 1
fi

if [ "${stage}" -le 0 ] && [ "${stop_stage}" -ge 0 ]; then
    ${python} "$(dirname "${BASH_SOURCE[0]}")/prepare_jsut.py" --corpus "${corpus}" --data_dir "${data_dir}" \
        --train_set "${train_set}" --valid_set "${valid_set}" --test_sets "${test_sets}" \
        --num_dev "${num_dev}" --num_eval "${num_eval}"
else
    echo "$0: the corpus is at ${corpus}" >&2
fi
