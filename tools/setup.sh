#!/usr/bin/env bash
# Make the Python environment of this project and print the path of its interpreter.
#
#   PYTHON=$(tools/setup.sh [requirements file ...])
#
# Installs requirements.txt, and the files named, into .venv at the root of the repository; does nothing when
# they are installed already. pip's own environment variables (PIP_INDEX_URL, PIP_FIND_LINKS, ...) are obeyed.
# DLRM_PYTHON=/path/to/python uses that environment as it is instead.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "setup: error: $1" >&2
    exit 1
}

is_recent() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

if [[ -n ${DLRM_PYTHON:-} ]]; then
    command -v "$DLRM_PYTHON" >/dev/null || fail "DLRM_PYTHON=$DLRM_PYTHON: no such program"
    "$DLRM_PYTHON" -c 'import torch, numpy, sklearn, mlperf_logging, tqdm, numba' 2>/dev/null ||
        fail "DLRM_PYTHON=$DLRM_PYTHON: lacks a package of requirements.txt"
    command -v "$DLRM_PYTHON"
    exit 0
fi

for file in "$@"; do
    [[ -f $file ]] || fail "$file: no such requirements file"
done

python=.venv/bin/python
# One stamp per set of requirements: the test's set includes the benchmark's and neither undoes the other.
wanted=$(cat requirements.txt "$@" | cksum)
stamp=.venv/installed-$(echo "$wanted" | tr ' ' -)

if [[ ! -f $stamp ]] || ! "$python" -c '' 2>/dev/null; then
    base=
    for candidate in python3 python3.11 python3.12 python3.13 python3.14 python; do
        if command -v "$candidate" >/dev/null && is_recent "$candidate"; then
            base=$candidate
            break
        fi
    done
    [[ -n $base ]] || fail "no Python 3.11 or newer with venv and ensurepip (on Debian: python3-venv) found"
    # pip's progress goes to stderr: stdout is the answer.
    {
        echo "setup: installing into .venv, once"
        "$python" -c '' 2>/dev/null || "$base" -m venv --clear .venv
        requirements=(-r requirements.txt)
        for file in "$@"; do requirements+=(-r "$file"); done
        "$python" -m pip install --disable-pip-version-check --quiet "${requirements[@]}" ||
            fail "pip could not install the requirements"
        touch "$stamp"
    } >&2
fi
echo "$PWD/$python"
