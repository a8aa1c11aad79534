#!/usr/bin/env bash
# Check and time the GPU engine on a machine with a GPU. README.md in this folder lists requirements and expected times.
#
#   [OUT=folder] [WHEELS=folder] [DLRM_PYTHON=python] bench/gpu/run.sh [--reduced] first|tables|second|STAGE ...
#
# first    the stages env smoke tests large optimizers: checks correctness, about 5 minutes.
# tables   the stages env profile times dcnv2 measure variants reading auc precisions: measures everything that the tables
#          of the documentation contain, about 10 minutes. What cannot start within 10 minutes is skipped and named.
# second   the stages tune full run general sanitize inference: slower checks, other block sizes, and the latency of
#          scoring, about 5 minutes.
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
gpu=(--use-gpu)
if [[ ${1:-} == --reduced ]]; then
    reduced=(--reduced)
    gpu=()
    export TRITON_INTERPRET=1
    shift
fi
[[ $# -gt 0 ]] || fail "no stage is named; bench/gpu/run.sh --help lists them"
tables=(env profile times dcnv2 measure variants reading auc precisions)
stages=()
end_of_tables=
for name in "$@"; do
    case $name in
        first) stages+=(env smoke tests large optimizers) ;;
        tables) stages+=(start_of_tables "${tables[@]}" end_of_tables) ;;
        second) stages+=(tune full run general sanitize inference) ;;
        env | smoke | tests | large | optimizers) stages+=("$name") ;;
        profile | times | dcnv2 | measure | variants | reading | auc | precisions) stages+=("$name") ;;
        tune | full | run | general | sanitize | inference) stages+=("$name") ;;
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
[[ ! " ${stages[*]} " =~ " "(general|run|precisions)" " ]] || needs+=,mlperf_logging
python=$(tools/setup.sh --needs=$needs requirements-test.txt) || exit 2
export DLRM_PYTHON=$python PYTHONUNBUFFERED=1
export PYTHONPATH=$PWD:$PWD/bench${PYTHONPATH:+:$PYTHONPATH}

failed=()
stage() { # runs a stage: name, limit in seconds, lines of its log to show, command
    local name=$1 limit=$2 lines=$3 start=$SECONDS status=0
    shift 3
    echo "##### $name"
    if [[ -n $end_of_tables ]]; then
        if ((end_of_tables - SECONDS < 20)); then
            echo "##### $name: skipped, the 10 minutes of the tables are over"
            failed+=("$name")
            return
        fi
        ((end_of_tables - SECONDS >= limit)) || limit=$((end_of_tables - SECONDS))
    fi
    run timeout "$limit" "$@" >"$out/$name.log" 2>&1 || status=$?
    grep -vE '^\s*$|Warning' "$out/$name.log" | tail -n "$lines"
    echo "##### $name: status $status after $((SECONDS - start)) s (limit $limit s)"
    [[ $status -eq 0 ]] || failed+=("$name")
}
script() { # runs a stage that is a script of bench/: name, limit, lines, script and its flags
    local name=$1 limit=$2 lines=$3 file=bench/$4
    shift 4
    stage "$name" "$limit" "$lines" "$python" "$file" "$@" ${reduced[@]+"${reduced[@]}"}
}
training() { # runs a stage that is measure_training.py: name, limit, its flags
    local name=$1 limit=$2
    shift 2
    if [[ ${#reduced[@]} -gt 0 ]]; then
        script "$name" "$limit" 80 measure_training.py "$@" --no-compile --shapes=Kaggle-128 --precision=bf16
    else
        script "$name" "$limit" 80 measure_training.py "$@" --no-compile --rounds=8 --use-gpu
    fi
}
on_gpu() { # runs a stage unless --reduced is given: name and the rest of its arguments
    if [[ ${#reduced[@]} -gt 0 ]]; then
        echo "##### $1: skipped, it needs a GPU"
    else
        stage "$@"
    fi
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
        start_of_tables) end_of_tables=$((SECONDS + 600)) ;;
        end_of_tables) end_of_tables= ;;
        env) script env 40 40 gpu/print_environment.py ;;
        smoke) tests smoke 90 $model::test_steps_match_float64 $model::test_captured_step_reports_an_invalid_id ;;
        # That kernels compile for other generations of GPUs is tested without a GPU.
        tests)
            tests tests 150 -n 8 test/test_gpu_step.py test/test_gpu_kernels.py test/test_gpu_row_updates.py \
                test/test_gpu_dcnv2.py -k "not compile"
            ;;
        large)
            tests large 150 $model::test_large_batches_match_float64_and_repeat \
                $model::test_asynchronous_steps_give_the_sums_of_synchronous_steps \
                $model::test_steps_of_dcnv2_match_float64
            ;;
        optimizers)
            tests optimizers 180 $model::test_all_optimizers_and_precisions_of_tables_match_float64 \
                $model::test_rows_updated_once_are_equal_in_every_run
            ;;
        profile) script profile 180 190 gpu/profile_step.py --output="$out/profile.json" ;;
        times) script times 90 10 gpu/time_full_tables.py ;;
        dcnv2) script dcnv2 90 90 gpu/time_dcnv2.py ;;
        measure) training measure 240 --minutes=2.5 --evaluate=89137319 ;;
        variants)
            for variant in adagrad,fp32 rwsadagrad,fp32 sgd,bf16 sgd,fp16 rwsadagrad,bf16; do
                training "variant_${variant/,/_}" 75 --optimizer="${variant%,*}" --embedding-precision="${variant#*,}" \
                    --minutes=0.4 --precision=bf16 --shapes=MLPerf-full-65536,MLPerf-65536,MLPerf-2048
            done
            training variant_dcnv2 75 --optimizer=adagrad --minutes=0.4 --precision=bf16 --shapes=DCNv2-65536
            ;;
        # With all rows and rounds it takes longer than its limit.
        reading) script reading 90 60 measure_reading.py --rows=3200000 --rounds=3 ${gpu[@]+"${gpu[@]}"} ;;
        auc) script auc 60 10 measure_auc.py ;;
        precisions)
            on_gpu precisions 240 10 "$python" bench/measure_precisions.py --use-gpu --precision=bf16 \
                --embedding-precision=fp32,bf16
            ;;
        tune) script tune 170 120 gpu/tune_kernels.py ;;
        full) tests full 120 $model::test_tables_of_the_full_size_match_float64 ;;
        run) on_gpu run 150 25 env SEED=1 LOGDIR="$out/run" ./run_and_time.sh --use-gpu --precision=bf16 ;;
        general) tests general 240 -n 8 test/test_gpu_autograd.py test/test_gpu_runs.py ;;
        sanitize)
            if [[ ${#reduced[@]} -gt 0 ]]; then
                script sanitize 100 10 gpu/run_for_sanitizer.py
            else
                stage sanitize 100 40 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck \
                    --error-exitcode 9 "$python" bench/gpu/run_for_sanitizer.py
            fi
            ;;
        inference)
            script inference 100 80 measure_inference.py --shapes=MLPerf,Kaggle --batch-sizes=1,256,4096,65536 \
                --seconds=0.3 ${gpu[@]+"${gpu[@]}"}
            ;;
    esac
done
echo "logs: $out"
echo "failed: ${failed[*]:-nothing}"
[[ ${#failed[@]} -eq 0 ]]
