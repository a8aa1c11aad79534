#!/usr/bin/env bash
# Train on the Criteo Kaggle data for one epoch and print the time per iteration.
#
#   bench/dlrm_s_criteo_kaggle.sh [flags of the trainer, such as --test-freq=1024 or --num-batches=100]
#
# Reads input/train.txt or the data prepared from it; DATADIR names a folder other than input. Without data it trains on
# the synthetic sample. Logs are written to results/ (LOGDIR).
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

folder=${DATADIR:-$root/input}
raw=
[[ ! -f $folder/train.txt ]] || raw=$folder/train.txt
find_workload kaggle
find_data kaggle "$raw" "$folder/kaggleAdDisplayChallenge_processed" "$folder/train.txt" "$@"
run_logged kaggle "$python" "$root/dlrm_s_pytorch.py" "${workload_flags[@]}" \
    --data-generation=dataset "${data_flags[@]}" --round-targets=true \
    --learning-rate=0.1 --mini-batch-size=128 --print-freq=128 --print-time --test-mini-batch-size=16384 "$@"
