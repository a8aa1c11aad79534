#!/usr/bin/env bash
# Calls ../run_and_time.sh, for scripts that use this path. Variables and flags are the same.
exec "$(dirname "${BASH_SOURCE[0]}")/../run_and_time.sh" "$@"
