#!/usr/bin/env bash
# The benchmark: set up, find or generate data, prepare it, train to the target, time it, check the log.
#
#   [BENCHMARK=dlrm_dcnv2] [DATADIR=folder] [LOGDIR=folder] [SEED=n] [CONFIG=system or file] [EDITION=n.n.n] \
#       [DROP_CACHES=false] [NPROC=n] [NNODES=n NODE_RANK=n MASTER_ADDR=host] ./run_and_time.sh [flags of the trainer]
#
# BENCHMARK  dlrm (default: editions 0.7 to 2.1) or dlrm_dcnv2 (editions 3.0 to 6.0).
# DATADIR  folder with day_0 ... day_23 of the Criteo Terabyte data, or with a prepared NAME_train.bin and its
#          companions; for dlrm_dcnv2 also with the files day_K_*.npy and day_K_sparse_multi_hot.npz of its reference
#          implementation. Default: the data in input/, or a synthetic sample that is generated there if there is none.
# LOGDIR   folder for the compliance log and the console output (default: results/).
# SEED     random seed of the run (default: drawn from the system).
# CONFIG   a file, or the name between config_ and .sh of one in mlperf/systems/$BENCHMARK/. Default: sample for the
#          sample, otherwise gpu_32768 with --use-gpu, or cpu.
# EDITION  edition of MLPerf Training whose rules apply to the evaluations, the log and its check (default: the latest
#          of the benchmark).
# DROP_CACHES  false: do not drop the page cache of the machine before the run, which the rules require for a
#          submission; the log states it (default: true).
# NPROC    number of processes on this machine, such as its GPUs (default: 1). They are started by torchrun.
# NNODES   number of machines (default: 1). The script is started on each, with the same variables and flags, which
#          include SEED, and the same DATADIR; with NODE_RANK, from 0; and with MASTER_ADDR, the address of that with
#          NODE_RANK=0, and perhaps MASTER_PORT (default: 29500), on which it is reached. The one with NODE_RANK=0
#          prepares the data while the others wait, writes the logs, checks them and prints the RESULT line.
#
# A flag with which the run would not be a result, such as --load-model, is refused.
# The last line is RESULT,RECOMMENDATION,seed,seconds,user,start time. The exit status is 0 only if the target was
# reached and the official checker accepts the log. A usage error ends the script with status 2 before any work.
set -euo pipefail
caller=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=tools/signals.sh
source tools/signals.sh
# shellcheck source=tools/processes.sh
source tools/processes.sh

fail() { # ends the script with status 2 and one line, also if the message has a name with line ends
    printf 'run_and_time.sh: error: %s\n' "${1//[[:cntrl:]]/?}" >&2
    exit 2
}

usage() { # prints the comment at the top of this file
    sed -n '2,/^set /{s/^# \{0,1\}//p}' run_and_time.sh || output_failed $?
    echo "The flags of the trainer: python dlrm_s_pytorch.py --help"
}

from_caller() { # sets the variable named $1 to path $2, taken relative to the folder in which this script was called
    # Not by a command substitution, which would drop line ends at the end of a name.
    if [[ $2 == /* ]]; then printf -v "$1" %s "$2"; else printf -v "$1" %s "$caller/$2"; fi
}

choose_benchmark() { # sets benchmark, and data_set to its value of --data-set
    benchmark=${BENCHMARK:-dlrm}
    case $benchmark in
    dlrm) data_set=terabyte ;;
    dlrm_dcnv2) data_set=terabyte_dcnv2 ;;
    *) fail "BENCHMARK=$benchmark: must be dlrm or dlrm_dcnv2" ;;
    esac
}

made_for() { # sets made_with to the --data-set with which the files with prefix $1 were prepared
    # Files of other programs have no manifest. The manifest of files converted from another program's names no data
    # set; they are dlrm's.
    made_with=$data_set
    [[ ! -f $1.json ]] || made_with=$(sed -n 's/^ *"data_set": "\([a-z0-9_]*\)".*/\1/p' -- "$1.json")
    made_with=${made_with:-terabyte}
}

find_data() { # sets raw_data, prepared_data and is_reference for what folder $1 has for the benchmark; $2: its name
    local file made_with prepared=() names=() other='' none
    for file in "$1"/*_train.bin; do
        [[ -e $file ]] || continue
        made_for "${file%_train.bin}"
        if [[ $made_with != "$data_set" ]]; then
            other="$file was prepared with --data-set=$made_with, and $benchmark needs --data-set=$data_set"
        else
            prepared+=("${file%_train.bin}")
            names+=("${file##*/}")
        fi
    done
    for file in "$1"/day_[0-9]*; do
        case $file in
        *.npy | *_sparse_multi_hot.npz) ;;
        *) [[ ! -e $file ]] || raw_data=$1/day ;;
        esac
    done
    if [[ -e $1/day_0_labels.npy && $data_set != terabyte_dcnv2 ]]; then
        other=${other:-"$1/day_0_labels.npy is of dlrm_dcnv2, not of $benchmark"}
    elif [[ -e $1/day_0_labels.npy ]]; then
        is_reference=true
        raw_data= # the files need no preparation
        prepared+=("$1")
        names+=(day_0_labels.npy)
    fi
    [[ ${#prepared[@]} -le 1 ]] ||
        fail "$2: has ${#prepared[@]} prepared data sets for $benchmark (${names[*]}); exactly one is allowed"
    prepared_data=${prepared[0]:-}
    [[ -z $raw_data ]] || prepared_data=${prepared_data:-$1/${data_set}_processed}
    none="has neither day_0 ... day_23 nor a *_train.bin"
    [[ $data_set != terabyte_dcnv2 ]] || none+=" nor day_0_labels.npy"
    [[ -n $prepared_data ]] || fail "$2: ${other:-$none}"
}

choose_data() { # sets raw_data, prepared_data, is_reference, is_sample and make_sample
    raw_data=
    prepared_data=
    is_reference=false
    is_sample=false
    make_sample=false
    if [[ -n ${DATADIR:-} ]]; then
        local folder
        from_caller folder "$DATADIR"
        [[ -d $folder ]] || fail "DATADIR=$DATADIR: no such folder"
        find_data "$folder" "DATADIR=$DATADIR"
        [[ ! -e $folder/sample.json ]] || is_sample=true
    elif compgen -G "input/day_[0-9]*" >/dev/null && [[ ! -e input/sample.json ]]; then
        find_data input input
    else
        raw_data=input/day
        prepared_data=input/${data_set/terabyte/sample}_processed
        is_sample=true
        make_sample=true
    fi
}

read_configuration() { # sets config and the variables that it defines
    local name=cpu flag variable
    for flag in "$@"; do
        [[ $flag != --use-gpu ]] || name=gpu_32768
    done
    [[ $is_sample == false ]] || name=sample
    name=${CONFIG:-$name}
    from_caller config "$name"
    [[ -f $config ]] || config=mlperf/systems/$benchmark/config_$name.sh
    [[ -f $config && -r $config ]] ||
        fail "CONFIG=$name: neither a file nor one of $(cd "mlperf/systems/$benchmark" && echo config_*.sh)"
    local required=(BATCH_SIZE TEST_BATCH_SIZE LEARNING_RATE WARMUP_STEPS DECAY_START_STEP DECAY_STEPS EPOCHS)
    unset "${required[@]}" AUC_TARGET MAX_IND_RANGE
    BENCHMARK=dlrm # of a configuration that does not say
    TRAINER_FLAGS=()
    load_configuration "$config"
    [[ ${BENCHMARK:-} == "$benchmark" ]] ||
        fail "$config: is a configuration for BENCHMARK=${BENCHMARK:-}, not for $benchmark"
    for variable in "${required[@]}"; do
        [[ -n ${!variable:-} ]] || fail "$config: does not set $variable"
    done
    # The trainer checks the values of all variables. This one has the same limits; the message here names the file.
    [[ $BATCH_SIZE =~ ^[[:space:]]*[+]?0*[1-9][0-9]{0,9}[[:space:]]*$ ]] ||
        fail "$config: BATCH_SIZE=$BATCH_SIZE: must be a whole number from 1 to 2147483647"
}

load_configuration() { # sources file $1, also as Windows writes text; fails if it is not a configuration
    if grep -q $'\r\|^\xef\xbb\xbf' "$1"; then
        check_configuration "$1" <(from_windows <"$1")
        # shellcheck source=/dev/null
        source <(from_windows <"$1")
    else
        check_configuration "$1" "$1"
        # shellcheck source=mlperf/systems/dlrm/config_cpu.sh
        source "$1"
    fi
}

from_windows() { # removes the mark at the beginning of a text and its carriage returns
    sed -e $'1s/^\xef\xbb\xbf//' -e $'s/\r//g'
}

check_configuration() { # fails if a shell that sources $2 reports an error or ends; $1: name for the message
    local line message='' is_complete=false
    # Until a line of our own: what the configuration starts in the background keeps the pipe open.
    while IFS= read -r line || [[ -n $line ]]; do
        message=${message:-$line}
        if [[ $line == complete ]]; then
            is_complete=true
            break
        fi
    done < <(
        trap - INT QUIT
        exec 2>&1
        # shellcheck source=/dev/null
        source "$2" >/dev/null
        printf '\ncomplete\n'
    )
    [[ $is_complete == true ]] ||
        fail "$1: is not a configuration, which sets variables: ${message:-it ends the script}"
}

ask() { # reads the output lines of `$1 -m mlperf.benchmarks $benchmark $3` into the array named $2
    local answer
    answer=$("$1" -m mlperf.benchmarks "$benchmark" "$3") || return
    mapfile -t "$2" < <([[ -z $answer ]] || printf '%s\n' "$answer")
}

assemble_flags() { # sets edition, trainer_flags and data_flags; $1: Python, remaining arguments: flags of the caller
    local python=$1 editions benchmark_flags sample_flags table_rows flag without_limit=() own_flags platform
    shift
    [[ -n $edition ]] || ask "$python" edition --default-edition || return
    ask "$python" editions --editions || return
    [[ " ${editions[*]} " == *" $edition "* ]] || fail "EDITION=$edition: allowed for BENCHMARK=$benchmark are ${editions[*]}"
    ask "$python" benchmark_flags --flags || return
    ask "$python" data_flags --data-flags || return
    # A configuration may override the benchmark's limit and target for experiments.
    [[ -z ${AUC_TARGET:-} ]] || benchmark_flags+=(--mlperf-auc-threshold="$AUC_TARGET")
    if [[ -n ${MAX_IND_RANGE:-} ]]; then
        benchmark_flags+=(--max-ind-range="$MAX_IND_RANGE")
        [[ " ${data_flags[*]}" != *" --max-ind-range="* ]] || data_flags+=(--max-ind-range="$MAX_IND_RANGE")
    fi
    if [[ $is_reference == true ]]; then
        # Unlike a manifest, these files do not say how many ids there are, of which the limit would make the rows.
        ask "$python" table_rows --table-rows || return
        for flag in "${benchmark_flags[@]}"; do
            [[ $flag == --max-ind-range=* ]] || without_limit+=("$flag")
        done
        benchmark_flags=("${without_limit[@]}" --arch-embedding-size="${table_rows[0]}")
    fi
    platform=$(basename "$config" .sh | sed 's/^config_//')
    ((NNODES == 1)) || platform=${NNODES}x$platform # as usual in MLPerf
    trainer_flags=(
        "${benchmark_flags[@]}" --round-targets=true
        --data-generation=dataset --processed-data-file="$prepared_data" ${raw_data:+--raw-data-file="$raw_data"}
        --mlperf-bin-loader --mlperf-bin-shuffle
        --mini-batch-size="$BATCH_SIZE" --test-mini-batch-size="$TEST_BATCH_SIZE" --nepochs="$EPOCHS"
        --learning-rate="$LEARNING_RATE" --lr-num-warmup-steps="$WARMUP_STEPS"
        --lr-decay-start-step="$DECAY_START_STEP" --lr-num-decay-steps="$DECAY_STEPS"
        --print-time --print-freq=2147483647 # progress is printed at each evaluation
        --numpy-rand-seed="$seed" --mlperf-logging --mlperf-edition="$edition"
        --mlperf-platform="$platform"
    )
    if [[ $is_sample == true ]]; then
        ask "$python" sample_flags --sample-flags || return
        trainer_flags+=(${sample_flags[@]+"${sample_flags[@]}"})
    fi
    own_flags=(${TRAINER_FLAGS[@]+"${TRAINER_FLAGS[@]}"} "$@")
    # The trainer's own parser, which needs neither data nor third-party packages.
    "$python" -m mlperf.cli.check_flags --processes="$processes" "${trainer_flags[@]}" -- ${own_flags[@]+"${own_flags[@]}"} || return
    trainer_flags+=(${own_flags[@]+"${own_flags[@]}"})
}

set_up() { # sets python; exits on usage errors, before installing anything if possible
    local message status=0 needs=mlperf_logging requirements=()
    if ! command -v "${DLRM_PYTHON:-.venv/bin/python}" >/dev/null; then
        message=$(assemble_flags python3 "$@" 2>&1) || status=$?
        if [[ $status -eq 2 ]]; then
            echo "$message" >&2
            exit 2
        fi
    fi
    [[ $make_sample == false ]] || needs+=,sklearn,tqdm
    if ((processes > 1)); then
        needs+=,torchrec,fbgemm_gpu
        requirements=(requirements-distributed.txt)
        [[ " ${TRAINER_FLAGS[*]-} $* " != *" --use-gpu "* ]] || requirements=(requirements-distributed-gpu.txt)
    fi
    run_for_line python tools/setup.sh --needs=$needs ${requirements[@]+"${requirements[@]}"} || exit
    assemble_flags "$python" "$@" || exit
}

make_data() { # generates the sample, prepares raw data and draws the ids of --multi-hot-sizes, unless that is done
    [[ $make_sample == false ]] || run "$python" -m mlperf.cli.sample --folder=input
    [[ -z $raw_data ]] || run "$python" -m mlperf.cli.prepare "${data_flags[@]}" --raw-data-file="$raw_data" \
        --processed-data-file="$prepared_data"
    [[ " ${trainer_flags[*]}" != *" --multi-hot-sizes="* ]] ||
        run "$python" -m mlperf.cli.draw_ids "${trainer_flags[@]}"
}

name_log() { # sets log and console_log to files in $logdir that no other run has, and creates console_log
    local name number=1
    name=$logdir/${benchmark}_$(date '+%Y%m%d_%H%M%S')_seed_$seed
    log=$name.log
    console_log=$name.console.txt
    # Creating a file is atomic, so that of two runs begun in the same second only one takes the name.
    until [[ ! -e $log ]] && (set -o noclobber && : >"$console_log") 2>/dev/null; do
        [[ -e $log || -e $console_log ]] || fail "LOGDIR=${LOGDIR:-$logdir}: $console_log cannot be created"
        number=$((number + 1))
        log=${name}_$number.log
        console_log=${name}_$number.console.txt
    done
}

drop_page_cache() { # sets cache_cleared
    cache_cleared=false
    [[ $drop_caches == true ]] || return 0
    run sync
    if { echo 3 >/proc/sys/vm/drop_caches; } 2>/dev/null ||
        { sudo -n sh -c 'echo 3 >/proc/sys/vm/drop_caches'; } 2>/dev/null; then
        cache_cleared=true
    fi
}

uptime_seconds() { # sets the variable named $1 to a time in seconds that does not change when the clock is set
    local seconds
    read -r seconds _ </proc/uptime
    printf -v "$1" %s "${seconds%%.*}"
}

train() { # sets status; $@: further flags of the trainer
    ends_when_stopped=false # the log is checked and the result printed, also of a stopped run
    status=0
    run "$python" ${launcher[@]+"${launcher[@]}"} dlrm_s_pytorch.py --mlperf-cache-cleared="$cache_cleared" "$@" \
        "${trainer_flags[@]}" || status=$?
}

for flag in "$@"; do
    case $flag in
    --help | -h)
        usage
        exit 0
        ;;
    --version)
        sed -n 's/^__version__ = "\(.*\)"$/run_and_time.sh \1/p' mlperf/version.py || output_failed $?
        exit 0
        ;;
    esac
done
choose_processes
seed=${SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
[[ $seed =~ ^0*[0-9]{1,10}$ && $((10#$seed)) -lt 4294967296 ]] ||
    fail "SEED=$seed: must be a whole number from 0 to 4294967295"
seed=$((10#$seed)) # as the log will show it
logdir=$PWD/results
[[ -z ${LOGDIR:-} ]] || from_caller logdir "$LOGDIR"
[[ $logdir != *[[:cntrl:]]* ]] || fail "LOGDIR=${LOGDIR:-$logdir}: must not contain line ends or other control characters"
[[ ! -e $logdir || -d $logdir ]] || fail "LOGDIR=${LOGDIR:-$logdir}: is not a folder"
drop_caches=${DROP_CACHES:-true}
[[ $drop_caches == true || $drop_caches == false ]] || fail "DROP_CACHES=$drop_caches: must be true or false"
choose_benchmark
edition=${EDITION:-} # if empty, assemble_flags asks for the default
choose_data
read_configuration "$@"

set_up "$@"
choose_launcher "${raw_data:+${prepared_data}_train.bin}"
if ((NODE_RANK > 0)); then
    drop_page_cache
    train
    exit "$status"
fi
mkdir -p "$logdir" 2>/dev/null && [[ -w $logdir ]] || fail "LOGDIR=${LOGDIR:-$logdir}: no files can be created there"
make_data
drop_page_cache

start=0 end=0
uptime_seconds start
start_text=$(date '+%Y-%m-%d %I:%M:%S %p')
name_log
echo "seed $seed, configuration $config, page cache dropped: $cache_cleared, compliance log $log"
exec 3> >(record "$console_log")
console=$!
train --mlperf-log-file="$log" >&3 2>&3
exec 3>&-
await "$console" || [[ $status -ne 0 ]] || status=1 # tee has printed which file cannot be written
[[ $status -ne 2 ]] || exit 2 # the trainer rejected its flags: there was no run
uptime_seconds end
seconds=$((end - start))

if [[ -e $log || $status -eq 0 ]]; then # no log exists if the trainer was stopped immediately
    check=0
    "$python" -m mlperf.cli.check "$log" --edition="$edition" || check=$?
    [[ $status -ne 0 ]] || status=$check
fi
[[ -z $stopped || $status -gt 128 ]] || status=$(stop_status)
if [[ -n $stopped || $status -gt 128 ]]; then
    echo "run_and_time.sh: interrupted; a timed run cannot be continued, the same command starts a new one" >&2 || true
fi
echo "RESULT,RECOMMENDATION,$seed,$seconds,$(id -un 2>/dev/null || id -u),$start_text" || [[ $status -ne 0 ]] || status=1
exit "$status"
