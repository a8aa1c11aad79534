#!/usr/bin/env bash
# Train on the Criteo Terabyte data for one epoch and print the time per iteration.
#
#   bench/dlrm_s_criteo_terabyte.sh [flags of the trainer, such as --test-freq=10240 or --num-batches=100]
#
# The network is the published one for tables of at most 10,000,000 rows, smaller than that of the benchmark. Reads
# input/day_0 ... day_23 or the data prepared from them; DATADIR names a folder other than input, --raw-data-file and
# --processed-data-file name files. Without data it trains on the synthetic sample. Logs are written to results/
# (LOGDIR).
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

train_on_criteo terabyte_10m --round-targets=true \
    --learning-rate=0.1 --mini-batch-size=2048 --print-freq=32 --print-time
