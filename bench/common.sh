# Functions shared by the scripts of this folder, which source this file.
#
# Sets $root and $python. Defines
#   run_logged NAME PROGRAM ARGUMENTS...   runs a program, prints its output and writes it to a log, then prints the
#                                          minimum and median time per iteration
#   find_workload NAME                     sets workload_flags to the trainer flags of a workload in mlperf/benchmarks
#   find_data ...                          sets data_flags, see below
# With --help, prints the comment at the top of the script and exits.
set -euo pipefail
for flag in "$@"; do
    case $flag in
    --help | -h)
        sed -n '2,/^source /{s/^# \{0,1\}//p}' "$0"
        echo "The flags of the trainer: python dlrm_s_pytorch.py --help"
        exit 0
        ;;
    esac
done
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$("$root/tools/setup.sh")
logs=${LOGDIR:-$root/results}
mkdir -p "$logs"

run_logged() {
    local name log number=1
    name=$logs/$1_$(date +%Y%m%d_%H%M%S)
    log=$name.log
    until (set -o noclobber && : >"$log") 2>/dev/null; do # no other run has this log
        [[ -e $log ]] || { echo "$log: cannot be created" >&2 && return 1; }
        number=$((number + 1))
        log=${name}_$number.log
    done
    shift
    echo "$*" | tee "$log"
    local status=0
    "$@" 2> >(tee -a "$log" >&2) | tee -a "$log" || status=$?
    echo "log: $log"
    [[ $status -eq 0 ]] || return "$status"
    "$python" "$root/bench/iteration_times.py" "$log"
}

find_workload() {
    local flags
    flags=$(cd "$root" && "$python" -m mlperf.benchmarks "$1" --flags)
    # shellcheck disable=SC2034 # the scripts that source this file use it
    mapfile -t workload_flags <<<"$flags"
}

# Sets data_flags to the flags that locate the data of a Criteo script: the synthetic sample of run_and_time.sh if there
# is no other data. Subsampled data is prepared under a separate name.
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
    echo "no Criteo data: neither $prefix nor ${processed}_train.bin; using the synthetic sample" >&2
    local sample=$root/input
    [[ -f $sample/sample.json ]] || "$python" "$root/tools/make_sample.py" --folder="$sample"
    mkdir -p "$sample/bench"
    data_flags=(--data-set=terabyte --raw-data-file="$sample/day" --processed-data-file="$sample/bench/$data_set$suffix")
}
