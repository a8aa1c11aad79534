#!/usr/bin/env bash
# Train on the Criteo Terabyte data for one epoch and print the time per iteration.
#
#   bench/dlrm_s_criteo_terabyte.sh [flags for the program, such as --test-freq=10240 or --num-batches=100]
#
# Reads input/day_0 ... day_23, or what was prepared from them; DATADIR names another folder than input. Without
# either it runs on the made-up sample. Logs go to results/ (LOGDIR).
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

folder=${DATADIR:-$root/input}
raw=
# The sample has files of the same names.
[[ ! -f $folder/day_0 || -f $folder/sample.json ]] || raw=$folder/day_0
find_data terabyte "$raw" "$folder/terabyte_processed" "$folder/day" "$@"
run_logged terabyte "$python" "$root/dlrm_s_pytorch.py" \
    --arch-sparse-feature-size=64 --arch-mlp-bot=13-512-256-64 --arch-mlp-top=512-512-256-1 \
    --data-generation=dataset "${data_flags[@]}" --max-ind-range=10000000 --loss-function=bce --round-targets=true \
    --learning-rate=0.1 --mini-batch-size=2048 --print-freq=32 --print-time --test-mini-batch-size=16384 "$@"
