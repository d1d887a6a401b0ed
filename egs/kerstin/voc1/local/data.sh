#!/usr/bin/env bash
# Data preparation of Kerstin's voice: data/{tr_no_dev,dev,eval1}/{wav.scp,text,utt2spk,spk2utt}.
# The corpus is taken from --db_root, or $KERSTIN, or --download_dir, and downloaded to the last if it isn't there.
# In the order of metadata.csv: the first 760 utterances are for training, 20 for development, all others for evaluation
# alone: 20 make the first set, and the rest a second one where test_sets names two.
set -euo pipefail

stage=0                 # first stage; -1: find or download the corpus, 0: also write the data folders
stop_stage=0            # last stage
db_root=                # folder of the corpus, with metadata.csv and verified/
download_dir=downloads  # where the corpus is looked for and downloaded to otherwise
data_dir=data           # folder of the sets
train_set=tr_no_dev     # name of the training set
valid_set=dev           # name of the development set
test_sets=eval1         # names of the evaluation sets; with two the first has num_eval utterances, the second the others
num_train=760           # utterances for training
num_dev=20              # utterances of the development set, which follow
num_eval=20             # utterances of the first evaluation set, which follow
commit=f73127135cf80d6ef52aef6af58c49774f4fd625 # version of the corpus
url=                    # its archive (default: that of this version at github.com/rhasspy/dataset-voice-kerstin)
sha256=c650c9380ae3dce4d97371092d11f65e7913cc16dd5b6441000a01ed94756ce3 # of metadata.csv; any: isn't checked
python=python3          # Python to use

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../../.." && pwd)
# shellcheck source=../../../../utils/parse_options.sh
. "${root}/utils/parse_options.sh"
if [ $# -ne 0 ]; then
    echo "$0: unexpected argument '$1' (see $0 --help)" >&2; exit 1
fi

# shellcheck source=../../../../db.sh
. "${root}/db.sh"
[ "${KERSTIN}" = downloads ] && KERSTIN=
corpus=${db_root:-${KERSTIN}}
if [ -z "${corpus}" ]; then
    folder=dataset-voice-kerstin-${commit}
    url=${url:-https://github.com/rhasspy/dataset-voice-kerstin/archive/${commit}.tar.gz}
    corpus=${download_dir}/${folder}
    # The archive is made when it is asked for, so neither its size nor its checksum is known: its content is checked.
    ${python} "${root}/local/download.py" --url "${url}" --output_dir "${download_dir}" --folder "${folder}" || {
        echo "$0: if you have the corpus, say where: KERSTIN=DIR or --db_root DIR" >&2; exit 1; }
fi

options=(--corpus "${corpus}" --data_dir "${data_dir}" --train_set "${train_set}" --valid_set "${valid_set}"
    --test_sets "${test_sets}" --num_train "${num_train}" --num_dev "${num_dev}" --num_eval "${num_eval}"
    --sha256 "${sha256}")
if [ "${stage}" -le 0 ] && [ "${stop_stage}" -ge 0 ]; then
    ${python} "$(dirname "${BASH_SOURCE[0]}")/prepare_kerstin.py" "${options[@]}"
else
    echo "$0: the corpus is at ${corpus}" >&2
    echo "${corpus}"
fi
