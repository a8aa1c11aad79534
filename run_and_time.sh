#!/usr/bin/env bash
# The benchmark: set up, get data, prepare it, train to the target, time it, check the log.
#
#   [DATADIR=folder] [LOGDIR=folder] [SEED=n] [CONFIG=system or file] [EDITION=2.1.0] \
#       ./run_and_time.sh [trainer's flags]
#
# DATADIR  holds day_0 ... day_23 of the Criteo Terabyte data, or a prepared NAME_train.bin and its companions.
#          Without it the data in input/ is used; where there is none, a sample with a planted signal is made.
# LOGDIR   where the compliance log and the console's lines go (default: results/).
# SEED     of the run, drawn from the system when not given.
# CONFIG   a file, or the name between config_ and .sh of one in mlperf/systems/ (default: sample for the
#          sample, otherwise gpu_32768 with --use-gpu, or cpu).
# EDITION  of MLPerf Training, by whose rules the run is evaluated, logged and checked (default: 2.1.0).
#
# The status is 0 only if the target was reached and the official checker accepts the log.
set -euo pipefail
caller=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")"

fail() {
    echo "run_and_time.sh: error: $1" >&2
    exit "${2:-2}"
}

raw_data=
prepared_data=

find_data() { # sets raw_data and prepared_data to prefixes in folder $1, or leaves them empty
    local prepared=("$1"/*_train.bin)
    if [[ -e ${prepared[0]} ]]; then
        [[ ${#prepared[@]} -eq 1 ]] || fail "DATADIR=$1: holds ${#prepared[@]} files *_train.bin, one is allowed"
        prepared_data=${prepared[0]%_train.bin}
    fi
    if compgen -G "$1/day_[0-9]*" >/dev/null; then
        raw_data=$1/day
        prepared_data=${prepared_data:-$1/terabyte_processed}
    fi
}

from_caller() { # prints path $1 as seen from the folder this script was called in
    if [[ $1 == /* ]]; then echo "$1"; else echo "$caller/$1"; fi
}

use_gpu=false
for flag in "$@"; do
    [[ $flag == --use-gpu ]] && use_gpu=true
done
seed=${SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
[[ $seed =~ ^[0-9]+$ ]] || fail "SEED=$seed: allowed is a whole number from 0 to 4294967295"
logdir=$PWD/results
[[ -z ${LOGDIR:-} ]] || logdir=$(from_caller "$LOGDIR")

python=$(tools/setup.sh)
edition=${EDITION:-2.1.0}
editions=$("$python" -c 'from mlperf.benchmarks.dlrm import EDITIONS; print(*EDITIONS)')
[[ " $editions " == *" $edition "* ]] || fail "EDITION=$edition: allowed are $editions"

if [[ -n ${DATADIR:-} ]]; then
    datadir=$(from_caller "$DATADIR")
    [[ -d $datadir ]] || fail "DATADIR=$DATADIR: no such folder"
    find_data "$datadir"
    [[ -n $raw_data$prepared_data ]] || fail "DATADIR=$DATADIR: holds neither day_0 ... day_23 nor a *_train.bin"
    default_config=cpu
    [[ ! -e $datadir/sample.json ]] || default_config=sample
elif compgen -G "input/day_[0-9]*" >/dev/null && [[ ! -e input/sample.json ]]; then
    find_data input
    default_config=cpu
else
    "$python" tools/make_sample.py --folder=input
    raw_data=input/day
    prepared_data=input/sample_processed
    default_config=sample
fi
[[ $use_gpu == true && $default_config != sample ]] && default_config=gpu_32768

config=${CONFIG:-$default_config}
if [[ -f $(from_caller "$config") ]]; then
    config=$(from_caller "$config")
else
    config=mlperf/systems/config_$config.sh
fi
[[ -f $config ]] || fail "CONFIG=$CONFIG: neither a file nor one of $(cd mlperf/systems && echo config_*.sh)"
TRAINER_FLAGS=()
# shellcheck source=mlperf/systems/config_cpu.sh
source "$config"

if [[ -n $raw_data ]]; then
    "$python" tools/prepare_criteo.py --data-set=terabyte --raw-data-file="$raw_data" \
        --processed-data-file="$prepared_data" --max-ind-range="$MAX_IND_RANGE"
fi

row_bytes=160
rows=$(($(wc -c <"${prepared_data}_train.bin") / row_bytes))
batches=$(((rows + BATCH_SIZE - 1) / BATCH_SIZE))
print_freq=$(((batches + 19) / 20))

cache_cleared=false
sync
if { echo 3 >/proc/sys/vm/drop_caches; } 2>/dev/null ||
    { sudo -n sh -c 'echo 3 >/proc/sys/vm/drop_caches'; } 2>/dev/null; then
    cache_cleared=true
fi

mkdir -p "$logdir"
start=$(date +%s)
start_text=$(date '+%Y-%m-%d %I:%M:%S %p')
log=$logdir/dlrm_$(date '+%Y%m%d_%H%M%S')_seed_$seed.log
echo "seed $seed, configuration $config, page cache dropped: $cache_cleared, compliance log $log"

# In the background, so that this shell hears SIGTERM and Ctrl-C and passes them on: the trainer closes its log.
exec 3> >(exec tee -i "${log%.log}.console.txt")
console=$!
(
    trap - INT # which a shell ignores in the background
    exec "$python" dlrm_s_pytorch.py \
        --arch-sparse-feature-size=128 --arch-mlp-bot=13-512-256-128 --arch-mlp-top=1024-1024-512-256-1 \
        --arch-interaction-op=dot --loss-function=bce --optimizer=sgd --round-targets=true \
        --data-generation=dataset --data-set=terabyte --processed-data-file="$prepared_data" \
        ${raw_data:+--raw-data-file="$raw_data"} --max-ind-range="$MAX_IND_RANGE" \
        --mlperf-bin-loader --mlperf-bin-shuffle \
        --mini-batch-size="$BATCH_SIZE" --test-mini-batch-size="$TEST_BATCH_SIZE" --nepochs="$EPOCHS" \
        --learning-rate="$LEARNING_RATE" --lr-num-warmup-steps="$WARMUP_STEPS" \
        --lr-decay-start-step="$DECAY_START_STEP" --lr-num-decay-steps="$DECAY_STEPS" \
        --print-freq="$print_freq" --print-time --numpy-rand-seed="$seed" \
        --mlperf-logging --mlperf-edition="$edition" --mlperf-log-file="$log" --mlperf-auc-threshold="$AUC_TARGET" \
        --mlperf-cache-cleared="$cache_cleared" --mlperf-platform="$(basename "$config" .sh | sed 's/^config_//')" \
        ${TRAINER_FLAGS[@]+"${TRAINER_FLAGS[@]}"} "$@"
) >&3 2>&3 &
trainer=$!
trap 'kill -INT "$trainer" 2>/dev/null' INT
trap 'kill -TERM "$trainer" 2>/dev/null' TERM
status=0
wait "$trainer" || status=$?
while kill -0 "$trainer" 2>/dev/null; do # a signal ends the wait, not the trainer
    status=0
    wait "$trainer" || status=$?
done
exec 3>&-
wait "$console" || true
seconds=$(($(date +%s) - start))

if [[ -e $log || $status -eq 0 ]]; then # a trainer that was called wrongly, or stopped at once, leaves none
    check=0
    "$python" tools/check_submission.py "$log" --edition="$edition" || check=$?
    [[ $status -ne 0 ]] || status=$check
fi
echo "RESULT,RECOMMENDATION,$seed,$seconds,$(id -un),$start_text"
exit "$status"
