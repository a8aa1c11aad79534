#!/usr/bin/env bash
# Check and time the GPU engine on a machine with a GPU. README.md in this folder lists requirements and expected times.
#
#   [OUT=folder] [WHEELS=folder] [DLRM_PYTHON=python] bench/gpu/run.sh [--reduced] first|second|STAGE ...
#
# first    the stages env smoke tests large optimizers: checks correctness, about 4 minutes.
# second   the stages profile tune full measure run general sanitize: measures speed, about 5 minutes.
#
# OUT          folder for the log of each stage, NAME.log (default: a new folder under /tmp).
# WHEELS       a folder with wheels of packages that the environment lacks, on a machine without a network.
# DLRM_PYTHON  an existing environment to use instead of the one created by tools/setup.sh.
# --reduced    tiny sizes in Triton's interpreter, to test these scripts on a machine without a GPU.
#
# Each stage has its own time limit and does not stop the next. The status is 1 if one of them failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
# shellcheck source=tools/signals.sh
source tools/signals.sh

usage() { # prints the comment at the head of this file
    sed -n '2,/^set /{s/^# \{0,1\}//p}' bench/gpu/run.sh || output_failed $?
}

fail() {
    echo "run.sh: error: $1" >&2
    exit 2
}

for flag in "$@"; do
    case $flag in
        --help | -h)
            usage
            exit 0
            ;;
    esac
done

reduced=()
if [[ ${1:-} == --reduced ]]; then
    reduced=(--reduced)
    export TRITON_INTERPRET=1
    shift
fi
[[ $# -gt 0 ]] || fail "no stage is named; bench/gpu/run.sh --help lists them"
stages=()
for name in "$@"; do
    case $name in
        first) stages+=(env smoke tests large optimizers) ;;
        second) stages+=(profile tune full measure run general sanitize) ;;
        env | smoke | tests | large | optimizers) stages+=("$name") ;;
        profile | tune | full | measure | run | general | sanitize) stages+=("$name") ;;
        *) fail "$name: no such stage; bench/gpu/run.sh --help lists them" ;;
    esac
done

out=${OUT:-$(mktemp -d /tmp/gpu-checks.XXXXXX)}
mkdir -p "$out" && out=$(cd "$out" && pwd)
packages=$(mktemp -d)
trap 'rm -rf "$packages"' EXIT

if [[ -n ${WHEELS:-} ]]; then
    export DLRM_PYTHON=${DLRM_PYTHON:-python3}
    "$DLRM_PYTHON" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile \
        --target "$packages" "$WHEELS"/*.whl || fail "WHEELS=$WHEELS: cannot be installed"
    export PYTHONPATH=$packages${PYTHONPATH:+:$PYTHONPATH}
fi
needs=triton,pytest,xdist
# The benchmark always writes a log, and the tests of general compare runs that do.
[[ " ${stages[*]} " != *" general "* && " ${stages[*]} " != *" run "* ]] || needs+=,mlperf_logging
python=$(tools/setup.sh --needs=$needs requirements-test.txt) || exit 2
export DLRM_PYTHON=$python PYTHONUNBUFFERED=1
export PYTHONPATH=$PWD:$PWD/bench${PYTHONPATH:+:$PYTHONPATH}

failed=()
stage() { # runs a stage: name, limit in seconds, lines of its log to show, command
    local name=$1 limit=$2 lines=$3 start=$SECONDS status=0
    shift 3
    echo "##### $name"
    run timeout "$limit" "$@" >"$out/$name.log" 2>&1 || status=$?
    grep -vE '^\s*$|Warning' "$out/$name.log" | tail -n "$lines"
    echo "##### $name: status $status after $((SECONDS - start)) s (limit $limit s)"
    [[ $status -eq 0 ]] || failed+=("$name")
}
script() { # runs a stage that is a script of this folder: name, limit, lines, script and its flags
    local name=$1 limit=$2 lines=$3 file=bench/gpu/$4
    shift 4
    stage "$name" "$limit" "$lines" "$python" "$file" "$@" ${reduced[@]+"${reduced[@]}"}
}
tests() { # runs a stage that is a selection of tests: name, limit, arguments of pytest
    local name=$1 limit=$2
    shift 2
    # Several processes share the cores, each with PyTorch's and Numba's threads.
    stage "$name" "$limit" 40 env OMP_NUM_THREADS=2 NUMBA_NUM_THREADS=2 \
        "$python" -m pytest -q -rs --maxfail=5 --durations=5 "$@"
}

for name in "${stages[@]}"; do
    model=test/test_gpu_benchmark_model.py
    case $name in
        env) script env 40 40 print_environment.py ;;
        smoke) tests smoke 90 $model::test_steps_match_float64 $model::test_captured_step_reports_an_invalid_id ;;
        # That kernels compile for other generations of GPUs is tested without a GPU.
        tests) tests tests 150 -n 8 test/test_gpu_step.py test/test_gpu_kernels.py test/test_gpu_row_updates.py \
            -k "not compile" ;;
        large)
            tests large 120 $model::test_large_batches_match_float64_and_repeat \
                $model::test_asynchronous_steps_give_the_sums_of_synchronous_steps
            ;;
        optimizers)
            tests optimizers 180 $model::test_all_optimizers_and_precisions_of_tables_match_float64 \
                $model::test_rows_updated_once_are_equal_in_every_run
            ;;
        profile) script profile 180 190 profile_step.py --output="$out/profile.json" ;;
        tune) script tune 150 90 tune_kernels.py ;;
        full)
            tests full 120 $model::test_tables_of_the_full_size_match_float64
            script full_times 90 10 time_full_tables.py
            ;;
        measure) script measure 200 40 measure_engine.py ;;
        run)
            if [[ ${#reduced[@]} -gt 0 ]]; then
                echo "##### run: skipped, it needs a GPU"
            else
                stage run 150 25 env SEED=1 LOGDIR="$out/run" ./run_and_time.sh --use-gpu --precision=bf16
            fi
            ;;
        general) tests general 240 -n 8 test/test_gpu_autograd.py test/test_gpu_runs.py ;;
        sanitize)
            if [[ ${#reduced[@]} -gt 0 ]]; then
                script sanitize 100 10 run_for_sanitizer.py
            else
                stage sanitize 100 40 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck \
                    --error-exitcode 9 "$python" bench/gpu/run_for_sanitizer.py
            fi
            ;;
    esac
done
echo "logs: $out"
echo "failed: ${failed[*]:-nothing}"
[[ ${#failed[@]} -eq 0 ]]
