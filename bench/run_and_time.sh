#!/usr/bin/env bash
# The benchmark, ../run_and_time.sh, under the name that older scripts call. Variables and flags are the same.
exec "$(dirname "${BASH_SOURCE[0]}")/../run_and_time.sh" "$@"
