#!/usr/bin/env bash
# Calls ../run_and_time.sh, for scripts that use this path. Variables and flags are the same.
folder=$(dirname "${BASH_SOURCE[0]}")
source "$folder/options.sh"
exec "$folder/../run_and_time.sh" ${options[@]+"${options[@]}"}
