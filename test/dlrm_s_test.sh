#!/usr/bin/env bash
# Compare the trainer with an independent NumPy implementation of the network, then run all other tests.
#
#   ./test/dlrm_s_test.sh [flags for both programs, such as --use-gpu]
#
# Creates the Python environment first, like run_and_time.sh. To run only the other tests: python -m pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

usage() { # prints the comment at the top of this file
    sed -n '2,/^set /{s/^# \{0,1\}//p}' test/dlrm_s_test.sh
    echo "The flags: python dlrm_s_pytorch.py --help"
}

check_flags() { # exits if the trainer rejects the flags; needs no third-party packages
    local python message status=0
    python=$(command -v "${DLRM_PYTHON:-.venv/bin/python}" || command -v python3) || return 0
    message=$("$python" -m mlperf.cli.check_flags "$@" 2>&1) || status=$?
    if [[ $status -eq 2 ]]; then
        echo "$message" >&2
        exit 2
    fi
}

for flag in "$@"; do
    case $flag in
    --help | -h)
        usage
        exit 0
        ;;
    --version)
        sed -n 's/^__version__ = "\(.*\)"$/dlrm_s_test.sh \1/p' mlperf/version.py
        exit 0
        ;;
    esac
done
common=(--learning-rate=0.1 --debug-mode)
check_flags "${common[@]}" "$@"

needs=sklearn,mlperf_logging,tqdm,pytest,xdist,torchrec,fbgemm_gpu
python=$(tools/setup.sh --needs=$needs requirements-test.txt requirements-distributed.txt)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cases=(
    "--mini-batch-size=1 --data-size=1"
    "--mini-batch-size=2 --data-size=4"
    "--mini-batch-size=2 --data-size=5"
    "--mini-batch-size=2 --data-size=5 --nepochs=3"
    "--mini-batch-size=2 --data-size=5 --arch-interaction-op=dcn --dcn-low-rank-dim=3 --loss-function=bce_logits"
)

echo "Running commands ..."
for program in dlrm_s_pytorch.py test/dlrm_s_numpy.py; do
    echo "python $program"
    for number in "${!cases[@]}"; do
        read -ra flags <<<"${cases[number]}"
        "$python" "$program" "${common[@]}" "${flags[@]}" "$@" >"$folder/$(basename "$program" .py)_$((number + 1))"
    done
done

echo "Checking results ..."
failed=0
for number in "${!cases[@]}"; do
    test=$((number + 1))
    echo "diff test$test (no numeric values in the output = SUCCESS)"
    "$python" test/compare_outputs.py "$folder/dlrm_s_pytorch_$test" "$folder/dlrm_s_numpy_$test" || failed=1
done
if [[ $failed -ne 0 ]]; then
    echo "dlrm_s_test.sh: error: the two implementations disagree" >&2
    exit 1
fi

# As many workers as cores: threads of one would only wait for those of another.
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} "$python" -m pytest -q -n auto --maxprocesses=8 --dist=loadgroup
