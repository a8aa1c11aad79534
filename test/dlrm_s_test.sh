#!/usr/bin/env bash
# Set up as run_and_time.sh does and run all tests.
#
#   ./test/dlrm_s_test.sh [pytest's arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python=$(tools/setup.sh requirements-test.txt)
exec "$python" -m pytest -q "$@"
