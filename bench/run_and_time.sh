#!/usr/bin/env bash
# The benchmark at its old place: ../run_and_time.sh, with the same variables and flags.
exec "$(dirname "${BASH_SOURCE[0]}")/../run_and_time.sh" "$@"
