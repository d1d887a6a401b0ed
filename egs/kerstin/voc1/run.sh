#!/usr/bin/env bash
# Kerstin (German, one speaker, 1.8 hours, 48 kHz, CC0) at 22.05 kHz. Downloads the corpus (0.9 GB); KERSTIN=DIR or
# --db_root DIR names a copy. Takes all options of the top run.sh.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"

exec ../../../run.sh \
    --recipe_dir "${PWD}" \
    --resample true \
    --lang de \
    --train_config ../../voice/voc1/conf/train_voice.yaml \
    "$@"
