#!/usr/bin/env bash
# Train on the Criteo Kaggle data for one epoch and print the time per iteration.
#
#   bench/dlrm_s_criteo_kaggle.sh [flags for the program, such as --test-freq=1024 or --num-batches=100]
#
# Reads input/train.txt, or what was prepared from it; DATADIR names another folder than input. Without either it
# runs on the made-up sample. Logs go to results/ (LOGDIR).
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

folder=${DATADIR:-$root/input}
raw=
[[ ! -f $folder/train.txt ]] || raw=$folder/train.txt
find_data kaggle "$raw" "$folder/kaggleAdDisplayChallenge_processed" "$folder/train.txt" "$@"
run_logged kaggle "$python" "$root/dlrm_s_pytorch.py" \
    --arch-sparse-feature-size=16 --arch-mlp-bot=13-512-256-64-16 --arch-mlp-top=512-256-1 \
    --data-generation=dataset "${data_flags[@]}" --loss-function=bce --round-targets=true \
    --learning-rate=0.1 --mini-batch-size=128 --print-freq=128 --print-time --test-mini-batch-size=16384 "$@"
