#!/usr/bin/env bash
# The paper's studies on the bundled corpus, small enough for a CPU: models and trainings of the same sizes, one thing
# changed in each. Takes the options of the top folder's local/studies.sh.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
top=$(cd ../../.. && pwd)

# What is cut down from the paper's configuration, in all of them alike.
sizes=(--vocoder_conf n_block=6 --vocoder_conf n_flow=2 --vocoder_conf filter_size=32 --segment_length 4096
    --batch_size 4 --valid_batch_size 4 --num_workers 1 --num_iters_per_epoch 20 --max_epoch 4 --sample_interval 0)

# With --python, run.sh says what that one lacks.
# shellcheck source=../../../../path.sh
[[ " $* " == *" --python"[\ =]* ]] || (. "${top}/path.sh") 2> /dev/null || "${top}/local/setup_env.sh"
exec "${top}/local/studies.sh" --recipe_dir "${PWD}" --stage 0 --ngpu 0 --nj 2 --inference_nj 2 --train_args "${sizes[*]}" "$@"
