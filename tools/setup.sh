#!/usr/bin/env bash
# Create the virtual environment of this project and print the path of its interpreter.
#
#   python=$(tools/setup.sh [--needs=package,...] [requirements file ...])
#
# Installs requirements.txt, the files named and this project itself (editable, with its programs dlrm-train,
# dlrm-prepare, ...) into .venv at the root of the repository. Does nothing if they are already installed.
# requirements-distributed.txt and requirements-distributed-gpu.txt, for runs of several processes, are installed without
# the needs that their packages state. One replaces the other.
# pip's own environment variables (PIP_INDEX_URL, PIP_FIND_LINKS, PIP_NO_INDEX, ...) are obeyed.
#
# DLRM_PYTHON=/path/to/python uses another environment without changing it. It must have torch, numpy, numba and the
# packages after --needs, by the names under which they are imported; this project need not be installed in it. An
# active virtual environment is used only if DLRM_PYTHON names it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=tools/signals.sh
source tools/signals.sh

fail() {
    printf 'setup.sh: error: %s\n' "${1//[[:cntrl:]]/?}" >&2
    exit "${2:-1}"
}

usage() { # prints the comment at the top of this file
    sed -n '2,/^set /{s/^# \{0,1\}//p}' tools/setup.sh || output_failed $?
}

is_supported() { # succeeds if Python $1 has wheels of the pinned packages and can create environments
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null
}

missing_package() { # prints the first of the packages named after $1 that is missing in Python $1, or nothing
    "$1" -c '
import sys
from importlib.util import find_spec
print(next((name for name in sys.argv[1:] if find_spec(name) is None), ""))' "${@:2}"
}

find_base() { # prints the Python with which to create the environment, or nothing
    local candidate
    for candidate in python3 python3.11 python3.12 python3.13 python3.14 python; do
        if command -v "$candidate" >/dev/null && is_supported "$candidate"; then
            echo "$candidate"
            return
        fi
    done
}

without_installing() { # prints how to use an environment that exists: the active one, if there is one
    if [[ -n ${VIRTUAL_ENV:-} && $VIRTUAL_ENV != "$PWD/.venv" ]]; then
        echo "DLRM_PYTHON=${VIRTUAL_ENV//[[:cntrl:]]/?}/bin/python uses the active environment instead"
    else
        echo "DLRM_PYTHON=/path/to/python uses an existing environment instead"
    fi
}

pip_install() { # installs what the arguments name into .venv
    run "$python" -m pip install --disable-pip-version-check --quiet "$@"
}

install() { # creates .venv and installs the given requirements files
    local base file together=() alone=()
    if ! "$python" -c '' 2>/dev/null; then
        base=$(find_base)
        [[ -n $base ]] ||
            fail "found no Python 3.11 to 3.14 with venv and ensurepip (on Debian: python3-venv); $without"
        run "$base" -m venv --clear .venv || fail "$base could not create .venv; $without"
    fi
    for file in "$@"; do
        if [[ $file == "$distributed"*.txt ]]; then alone+=("$file"); else together+=("$file"); fi
    done
    pip_install "${together[@]/#/--requirement=}" || fail "pip could not install ${together[*]}; $without"
    if [[ ${#alone[@]} -gt 0 ]]; then
        # The builds of FBGEMM for CPUs and for GPUs have the same files.
        run "$python" -m pip uninstall --disable-pip-version-check --quiet --yes fbgemm-gpu fbgemm-gpu-cpu
        pip_install --no-deps "${alone[@]/#/--requirement=}" || fail "pip could not install ${alone[*]}; $without"
    fi
    # requirements.txt has the build tool: nothing is downloaded for this.
    pip_install --no-deps --no-build-isolation --editable . ||
        fail "pip could not install this project into .venv; $without"
}

distributed=requirements-distributed # and .txt or -gpu.txt
packages=(torch numpy numba) # needed for training
files=()
for argument in "$@"; do
    case $argument in
    --help | -h)
        usage
        exit 0
        ;;
    --needs=?*)
        IFS=, read -ra more <<<"${argument#--needs=}"
        packages+=("${more[@]}")
        ;;
    -*) fail "$argument: unknown flag; allowed are --help, --needs and names of requirements files" 2 ;;
    *)
        [[ -f $argument ]] || fail "$argument: no such requirements file"
        files+=("$argument")
        ;;
    esac
done
set -- ${files[@]+"${files[@]}"}

if [[ -n ${DLRM_PYTHON:-} ]]; then
    command -v "$DLRM_PYTHON" >/dev/null || fail "DLRM_PYTHON=$DLRM_PYTHON: no such program" 2
    missing=$(missing_package "$DLRM_PYTHON" "${packages[@]}") ||
        fail "DLRM_PYTHON=$DLRM_PYTHON: cannot be run as a Python" 2
    list=requirements.txt
    [[ ! $missing =~ ^(torchrec|fbgemm_gpu)$ ]] || list=$distributed.txt
    [[ -z $missing ]] || fail "DLRM_PYTHON=$DLRM_PYTHON: lacks the package $missing; $list lists all"
    command -v "$DLRM_PYTHON"
    exit 0
fi

python=.venv/bin/python
# Stamp files record which requirements are installed: one for requirements.txt, one for each file beside it. Other
# stamps are removed, because pip may have changed those packages. The checksum includes the path: a moved environment
# does not work.
stamp() { # prints the stamp of requirements.txt with the file $1, if there is one
    echo ".venv/installed-$({ pwd && cat pyproject.toml mlperf/version.py requirements.txt "$@"; } | cksum | tr ' ' -)"
}
wanted=("$(stamp)")
for file in "$@"; do
    wanted+=("$(stamp "$file")")
done
is_installed() {
    local file
    for file in "${wanted[@]}"; do
        [[ -f $file ]] || return 1
    done
    "$python" -c '' 2>/dev/null
}
if ! is_installed; then
    # Two installations into one environment would damage it. pip inherits the lock and keeps it if only this shell
    # is killed.
    exec {lock}<tools/setup.sh
    if ! flock --nonblock "$lock"; then
        echo "setup.sh: waiting for another installation into .venv" >&2
        run flock "$lock"
    fi
fi
if ! is_installed; then
    without=$(without_installing)
    # pip's progress goes to stderr; stdout has only the path.
    {
        echo "setup.sh: installing into .venv (first run); $without"
        rm -f .venv/installed-*
        install requirements.txt "$@"
        touch "${wanted[@]}"
    } >&2
fi
echo "$PWD/$python"
