# What the scripts of this folder share; sourced by them.
#
# Gives $root, $python; run_logged NAME PROGRAM ARGUMENTS..., which prints and keeps what a run says and ends with
# the least and the median time per iteration; and find_data.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$("$root/tools/setup.sh")
logs=${LOGDIR:-$root/results}
mkdir -p "$logs"

run_logged() {
    local log
    log=$logs/$1_$(date +%Y%m%d_%H%M%S).log
    shift
    echo "$*" | tee "$log"
    local status=0
    "$@" 2> >(tee -a "$log" >&2) | tee -a "$log" || status=$?
    echo "log: $log"
    [[ $status -eq 0 ]] || return "$status"
    "$python" "$root/bench/iteration_times.py" "$log"
}

# Where the data of a Criteo script is: sets data_flags. Without any, the made-up sample of run_and_time.sh.
# Data with fewer rows is prepared beside the whole.
#   find_data DATA_SET RAW_FILE_OR_NOTHING PROCESSED_FILE VALUE_OF_RAW_DATA_FILE FLAGS...
find_data() {
    local data_set=$1 raw=$2 processed=$3 prefix=$4 suffix
    shift 4
    suffix=$(printf '%s ' "$@" | sed -nE 's/.*--data-sub-sample-rate[= ]([0-9.]+).*/_sub\1/p')
    processed=$processed$suffix
    if [[ -n $raw || -e ${processed}_train.bin ]]; then
        data_flags=(--data-set="$data_set" --processed-data-file="$processed")
        [[ -z $raw ]] || data_flags+=(--raw-data-file="$prefix")
        return
    fi
    echo "no Criteo data: neither $prefix nor ${processed}_train.bin; using the made-up sample" >&2
    local sample=$root/input
    [[ -f $sample/sample.json ]] || "$python" "$root/tools/make_sample.py" --folder "$sample"
    mkdir -p "$sample/bench"
    data_flags=(--data-set=terabyte --raw-data-file="$sample/day" --processed-data-file="$sample/bench/$data_set$suffix")
}
