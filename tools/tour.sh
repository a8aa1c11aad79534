#!/usr/bin/env bash
# A tour of what the program does besides the benchmark, on a small sample, in about a minute:
#
#   tools/tour.sh [FOLDER]
#
# FOLDER is a new folder for its files (default: tour/). Each command is printed before it runs and can be repeated in
# FOLDER. tools/setup.sh describes DLRM_PYTHON. The pages are in mlperf/docs/.
set -euo pipefail
caller=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD
# shellcheck source=tools/signals.sh
source tools/signals.sh

fail() { # ends the script with status 2 and one line
    printf 'tour.sh: error: %s\n' "${1//[[:cntrl:]]/?}" >&2
    exit 2
}

step() { # prints a heading: what is shown, and the page about it
    printf '\n== %s (mlperf/docs/%s)\n' "$1" "$2"
}

call() { # prints and runs a program of mlperf/cli/ with its flags
    printf '$ dlrm-%s' "$1"
    printf ' %q' "${@:2}"
    printf '\n'
    PYTHONPATH=$root run "$python" -m "mlperf.cli.$1" "${@:2}"
}

case ${1:-} in
-h | --help)
    sed -n '2,/^set /{s/^# \{0,1\}//p}' tools/tour.sh || output_failed $?
    exit
    ;;
esac
(($# <= 1)) || fail "$*: must be one folder"
folder=${1:-tour}
[[ $folder == /* ]] || folder=$caller/$folder
[[ ! -e $folder && ! -L $folder ]] || fail "$folder exists; name a new folder"

python=''
run_for_line python tools/setup.sh
mkdir -p -- "$folder"
cd -- "$folder"

step "A sample in the format of the Criteo Terabyte logs" data.md
call sample --folder=sample --rows=48000 --seed=1

step "Some of the days" data.md
call prepare --data-set=terabyte --days=0-3,23 --raw-data-file=sample/day --processed-data-file=five_days

step "The same text as your own click log: its columns are described in a file" own_data.md
cp -- "$root/input/columns_sample.toml" columns.toml
call prepare --data-set=columns --columns=columns.toml --raw-data-file=sample/day_0 --processed-data-file=clicks

step "Later text, numbered as the earlier: known ids keep their rows" numbering.md
call prepare --data-set=terabyte --days=20-21 --raw-data-file=sample/day --processed-data-file=later \
    --ids-from=five_days

step "Settings in a file; look before you start" runs.md
cat >settings.toml <<'TOML'
data-generation = "dataset"
data-set = "columns"
processed-data-file = "clicks"
arch-sparse-feature-size = 16
arch-mlp-bot = [13, 64, 16]
arch-mlp-top = [64, 1]
loss-function = "bce"
learning-rate = 0.3
mini-batch-size = 256
test-mini-batch-size = 4096
test-freq = 60
print-freq = 60
print-time = true
mlperf-logging = true
TOML
cat settings.toml
call train --config=settings.toml --dry-run

step "A folder for each run, with metrics, checkpoints and where the time goes" "runs.md, metrics.md, time.md"
call train --config=settings.toml --output-dir=first --checkpoint-every=1 --time-breakdown

step "Continue it" runs.md
call train --output-dir=first --resume --nepochs=2

step "Start another run from its weights" checkpoints.md
call train --config=settings.toml --output-dir=second --load-weights=first/model.pt --learning-rate=0.1 --time-breakdown

step "Predictions of a split, and of text without labels" predictions.md
call train --config=settings.toml --load-model=first/model.pt --inference-only --save-predictions=test.csv
head -n 3 test.csv
cut -f2- sample/day_22 >unlabelled.txt
call train --config=settings.toml --load-model=first/model.pt --inference-only --score-text=unlabelled.txt \
    --save-predictions=unlabelled.npy

step "Inference in 8 bits" inference.md
call train --config=settings.toml --load-model=first/model.pt --inference-only --quantize-mlp-with-bit=8 \
    --quantize-emb-with-bit=8
printf '$ python bench/measure_inference.py ...\n'
run "$python" "$root/bench/measure_inference.py" --load-model=first/model.pt --data=clicks --variants=fp32,int8-8 \
    --batch-sizes=1,256 --seconds=0.1

step "A page about the runs" metrics.md
call report first second --output=report.html
printf '\nDone: open %s in a browser\n' "${folder//[[:cntrl:]]/?}/report.html"
