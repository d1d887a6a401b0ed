#!/usr/bin/env bash
# The voice in the box: a small model of real speech, Kerstin's corpus (German, 0.9 GB, downloaded; KERSTIN=DIR names a
# copy) and clips of LJSpeech where there are some: LJSPEECH=DIR or --db_root DIR names a folder with metadata.csv and
# wavs/. The first 760 utterances and all but the last four clips are trained on. Takes all options of the top run.sh.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"

exec ../../../run.sh \
    --recipe_dir "${PWD}" \
    --ngpu 0 \
    --nj 2 \
    --inference_nj 2 \
    --resample true \
    --train_config conf/train_voice.yaml \
    --refine 32 \
    "$@"
