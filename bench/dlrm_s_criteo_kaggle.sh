#!/usr/bin/env bash
# Train on the Criteo Kaggle data for one epoch and print the time per iteration.
#
#   bench/dlrm_s_criteo_kaggle.sh [flags of the trainer, such as --test-freq=1024 or --num-batches=100]
#
# Reads input/train.txt or the data prepared from it; DATADIR names a folder other than input, --raw-data-file and
# --processed-data-file name files. Without data it trains on the synthetic sample. Logs are written to results/
# (LOGDIR).
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

train_on_criteo kaggle --round-targets=true \
    --learning-rate=0.1 --mini-batch-size=128 --print-freq=128 --print-time
