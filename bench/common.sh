# Functions shared by the scripts of this folder, which source this file.
#
# Sets $root, $python, and `options`, the user's flags. Defines
#   run_logged NAME PROGRAM ARGUMENTS...   runs a program, prints its output and writes it to a log, then prints the
#                                          minimum and median time per iteration
#   train_on_criteo WORKLOAD FLAGS...      trains with these flags and those of the user on a workload in
#                                          mlperf/benchmarks, with the data that bench/find_data.py chooses
# With --help, prints the comment at the top of the script and exits; with --version, the version.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=bench/options.sh
source "$root/bench/options.sh"
# shellcheck source=tools/signals.sh
source "$root/tools/signals.sh"
for option in ${options[@]+"${options[@]}"}; do
    case $option in
    --help | -h)
        sed -n '2,/^source /{s/^# \{0,1\}//p}' "$0" || output_failed $?
        echo "The flags of the trainer: python dlrm_s_pytorch.py --help"
        exit 0
        ;;
    --version)
        sed -n 's/^__version__ = "\(.*\)"$/'"${0##*/}"' \1/p' "$root/mlperf/version.py" || output_failed $?
        exit 0
        ;;
    esac
done
python=
run_for_line python "$root/tools/setup.sh"
logs=${LOGDIR:-$root/results}
[[ ! -e $logs || -d $logs ]] || { echo "${0##*/}: error: LOGDIR=$logs: is not a folder" >&2 && exit 2; }

run_logged() {
    local name log number=1 status=0 output errors
    mkdir -p "$logs"
    name=$logs/$1_$(date +%Y%m%d_%H%M%S)
    log=$name.console.txt # in a folder of results, *.log are compliance logs
    until (set -o noclobber && : >"$log") 2>/dev/null; do # no other run has this log
        [[ -e $log ]] || { echo "$log: cannot be created" >&2 && return 1; }
        number=$((number + 1))
        log=${name}_$number.console.txt
    done
    shift
    printf '%q ' "$@" | tee "$log"
    echo | tee -a "$log"
    ends_when_stopped=false # the output is complete, also that of a stopped program
    exec 5> >(record "$log")
    output=$!
    exec 6> >(record "$log" >&2)
    errors=$!
    run "$@" >&5 2>&6 || status=$?
    exec 5>&- 6>&-
    await "$output" || true
    await "$errors" || true
    echo "log: $log" || [[ $status -ne 0 ]] || status=1
    # A run that missed the target (status 3) was complete.
    [[ $status -ne 0 && $status -ne 3 ]] || "$python" "$root/bench/iteration_times.py" "$log"
    return "$status"
}

train_on_criteo() {
    local workload=$1 data_set=${1%%_*} workload_flags data_flags sample evaluates answer
    shift
    answer=$(cd "$root" && "$python" -m mlperf.benchmarks "$workload" --flags)
    mapfile -t workload_flags <<<"$answer"
    answer=$("$python" "$root/bench/find_data.py" "$data_set" "${workload_flags[@]}" "$@" -- \
        ${options[@]+"${options[@]}"}) || return
    eval "$answer" # data_flags=(...) sample=... evaluates=...
    # Without evaluations, the trainer would remark that this flag has no effect.
    [[ $evaluates == false ]] || set -- "$@" --test-mini-batch-size=16384
    if [[ -n $sample ]]; then
        [[ -f $sample/sample.json ]] || run "$python" "$root/tools/make_sample.py" --folder="$sample"
        mkdir -p "$sample/bench"
    fi
    run_logged "$data_set" "$python" "$root/dlrm_s_pytorch.py" "${workload_flags[@]}" "$@" \
        ${data_flags[@]+"${data_flags[@]}"} ${options[@]+"${options[@]}"}
}
