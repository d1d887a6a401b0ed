#!/usr/bin/env bash
# JSUT (Japanese, one speaker, 48 kHz) at 24 kHz with 300 samples per frame, ESPnet2's settings for this corpus.
# Say where the corpus is by JSUT=DIR or --db_root DIR. Takes all options of the top run.sh.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"

exec ../../../run.sh \
    --recipe_dir "${PWD}" \
    --fs 24000 \
    --n_fft 2048 \
    --n_shift 300 \
    --win_length 1200 \
    --resample true \
    --lang ja \
    --train_config conf/train_flowavenet.yaml \
    "$@"
