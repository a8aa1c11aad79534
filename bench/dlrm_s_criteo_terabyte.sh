#!/usr/bin/env bash
# Train on the Criteo Terabyte data for one epoch and print the time per iteration.
#
#   bench/dlrm_s_criteo_terabyte.sh [flags of the trainer, such as --test-freq=10240 or --num-batches=100]
#
# The network is the published one for tables of at most 10,000,000 rows, smaller than that of the benchmark. Reads
# input/day_0 ... day_23 or the data prepared from them; DATADIR names a folder other than input. Without data it trains
# on the synthetic sample. Logs are written to results/ (LOGDIR).
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

folder=${DATADIR:-$root/input}
raw=
# The sample has files with the same names.
[[ ! -f $folder/day_0 || -f $folder/sample.json ]] || raw=$folder/day_0
find_workload terabyte_10m
find_data terabyte "$raw" "$folder/terabyte_processed" "$folder/day" "$@"
run_logged terabyte "$python" "$root/dlrm_s_pytorch.py" "${workload_flags[@]}" \
    --data-generation=dataset "${data_flags[@]}" --round-targets=true \
    --learning-rate=0.1 --mini-batch-size=2048 --print-freq=32 --print-time --test-mini-batch-size=16384 "$@"
