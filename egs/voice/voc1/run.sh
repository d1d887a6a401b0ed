#!/usr/bin/env bash
# The voice in the box: a small model, trained on hours of speech that flite makes from transcripts, with some real clips.
# Needs flite (Debian: apt-get install flite), transcripts in LJSpeech's metadata.csv and, better, its clips:
# LJSPEECH=DIR or --db_root DIR names a folder with metadata.csv and wavs/, of all of LJSpeech or a few clips.
# The held-out clips are those of egs/mini and the last four real ones. Takes all options of the top run.sh.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"

exec ../../../run.sh \
    --recipe_dir "${PWD}" \
    --ngpu 0 \
    --nj 2 \
    --inference_nj 2 \
    --train_config conf/train_voice.yaml \
    --refine 32 \
    "$@"
