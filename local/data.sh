#!/usr/bin/env bash
# Data preparation of LJSpeech: data/{tr_no_dev,dev,eval1}/{wav.scp,text,utt2spk,spk2utt}.
# The corpus is taken from --db_root, or $LJSPEECH, or --download_dir (in each: the folder itself, or LJSpeech-1.1
# in it), and downloaded to --download_dir if neither of the first two is given and it isn't there.
set -euo pipefail

stage=0                   # first stage; -1: find or download the corpus, 0: also write the data folders
stop_stage=0              # last stage
db_root=                  # folder of the corpus, or the folder that LJSpeech-1.1 is in
download_dir=downloads    # where the corpus is looked for and downloaded to otherwise
data_dir=data             # folder of the sets
train_set=tr_no_dev       # name of the training set
valid_set=dev             # name of the development set
test_sets=eval1           # name of the evaluation set; the development set may stand beside it
num_dev=250               # utterances of the development set
num_eval=250              # utterances of the evaluation set, the last ones
url=https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2  # archive of the corpus
size=2748572632           # its size in bytes; an empty value isn't checked
md5=c4763be9595ddfa79c2fc6eaeb3b6c8e  # its checksum; an empty value isn't checked
sha256=be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5  # its checksum; an empty value isn't checked
python=python3            # Python to use

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=utils/parse_options.sh
. "${root}/utils/parse_options.sh"
if [ $# -ne 0 ]; then
    echo "$0: unexpected argument '$1' (see $0 --help)" >&2; exit 1
fi
export PYTHONPATH="${root}${PYTHONPATH:+:${PYTHONPATH}}"

# shellcheck source=db.sh
. "${root}/db.sh"
[ "${LJSPEECH}" = downloads ] && LJSPEECH=
given=${db_root:-${LJSPEECH}}
base=${given:-${download_dir}}
if [ -e "${base}/LJSpeech-1.1" ]; then
    corpus=${base}/LJSpeech-1.1
elif [ -n "${given}" ] || [ -e "${base}/metadata.csv" ]; then
    corpus=${base}
else
    corpus=${base}/LJSpeech-1.1
    ${python} "${root}/local/download.py" --url "${url}" --output_dir "${download_dir}" --folder LJSpeech-1.1 \
        --size "${size}" --md5 "${md5}" --sha256 "${sha256}" || {
        echo "$0: if you have the corpus, say where: LJSPEECH=DIR or --db_root DIR" >&2; exit 1; }
fi

if [ "${stage}" -le 0 ] && [ "${stop_stage}" -ge 0 ]; then
    ${python} "${root}/local/prepare_ljspeech.py" --corpus "${corpus}" --data_dir "${data_dir}" \
        --train_set "${train_set}" --valid_set "${valid_set}" --test_sets "${test_sets}" \
        --num_dev "${num_dev}" --num_eval "${num_eval}"
else
    echo "$0: the corpus is at ${corpus}" >&2
fi
