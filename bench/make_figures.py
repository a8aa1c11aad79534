"""Draw every plot of the documentation, and print the numbers quoted in its text.

    python bench/make_figures.py                       # into mlperf/docs/images/
    python bench/make_figures.py --output-dir=DIR --work-dir=DIR

Uses the programs of this project on the synthetic sample; takes about 9 minutes on 2 cores. Requires the packages
of the extras `plot` and `graph`.
"""

from __future__ import annotations

import checkout  # noqa: F401

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from command_line import script_parser
from mlperf.benchmarks import BENCHMARKS, KAGGLE
from mlperf.util.program import run_program

ROOT = Path(__file__).resolve().parent.parent
SEEDS = (1, 2, 3, 4, 5)

DATA = ("--data-generation=dataset", "--data-set=terabyte", "--loss-function=bce")
SMALL_MODEL = ("--arch-sparse-feature-size=16", "--arch-mlp-bot=13-64-16", "--arch-mlp-top=64-32-1")
REPORTS = (
    *("--test-freq=20", "--print-freq=20", "--print-time", "--test-mini-batch-size=4096", "--mlperf-logging"),
)
TABLE_KINDS = {"full tables": "", "quotient-remainder": "--qr-flag", "mixed dimension": "--md-flag"}


def main() -> None:
    """Generate the sample, train on it, and draw the plots."""
    parser = script_parser(__file__, __doc__)
    parser.add_argument("--output-dir", type=Path, default=ROOT / "mlperf" / "docs" / "images")
    parser.add_argument(
        "--work-dir", type=Path, default=ROOT / "results" / "figures", help="folder for data, logs and models"
    )
    flags = parser.parse_args()
    images, work = flags.output_dir.resolve(), flags.work_dir.resolve()
    images.mkdir(parents=True, exist_ok=True)
    work.mkdir(parents=True, exist_ok=True)

    print(_tool("make_sample", "--folder=data", cwd=work).strip())
    for benchmark in BENCHMARKS:
        _draw_seeds(benchmark, images, work)
    data = (*DATA, "--processed-data-file=data/terabyte_processed")
    _draw_table_kinds(data, images, work)
    _draw_graph(data, images, work)
    _draw_model(data, images, work)


def _draw_seeds(benchmark: str, images: Path, work: Path) -> None:
    """Run a benchmark to its target, once per seed: seeds_<benchmark>.png."""
    logs = []
    for seed in SEEDS:
        folder = work / f"{benchmark}_seed_{seed}"
        shutil.rmtree(folder, ignore_errors=True)
        variables = {"BENCHMARK": benchmark, "DATADIR": str(work / "data"), "LOGDIR": str(folder)}
        run = _run("./run_and_time.sh", cwd=ROOT, SEED=str(seed), **variables)
        (console,) = folder.glob("*.console.txt")
        evaluations = re.findall(r"Testing at - (\d+)/(\d+) of epoch (\d+)", console.read_text())
        iteration, batches, epoch = map(int, evaluations[-1])
        epochs = epoch + iteration / batches
        print(f"{benchmark}, seed {seed}: target reached by evaluation {len(evaluations)}, ", end="")
        print(f"{epochs:.2f} epochs; {run.splitlines()[-1]}")
        logs.append(str(console))
    labels = ",".join(f"seed {seed}" for seed in SEEDS)
    output = images / f"seeds_{benchmark}.png"
    _tool("plot_run", *logs, f"--labels={labels}", "--x=epochs", f"--output={output}", cwd=work)


def _draw_table_kinds(data: tuple[str, ...], images: Path, work: Path) -> None:
    """Train with full, quotient-remainder and mixed-dimension tables: table_kinds.png."""
    training = ("--mini-batch-size=512", "--learning-rate=1", "--lr-num-warmup-steps=100", "--nepochs=2")
    logs = []
    for name, flag in TABLE_KINDS.items():
        log = work / f"{name.replace(' ', '_')}.txt"
        kind = (flag,) if flag else ()
        run = _train(*data, *SMALL_MODEL, *training, *REPORTS, *kind, cwd=work)
        log.write_text(run)
        logs.append(str(log))
        print(f"{name}: best test AUC {_last(r'best auc ([0-9.]+)', run)}", _find(r"embedding tables: .*", run))
    labels = ",".join(TABLE_KINDS)
    _tool("plot_run", *logs, f"--labels={labels}", f"--output={images / 'table_kinds.png'}", cwd=work)


def _draw_graph(data: tuple[str, ...], images: Path, work: Path) -> None:
    """Draw the Kaggle model with the tables of the sample: graph.png."""
    _train(*data, *KAGGLE.network.flags, "--num-batches=1", "--plot-compute-graph", cwd=work)
    (work / "dlrm_s_pytorch_graph.png").replace(images / "graph.png")


def _draw_model(data: tuple[str, ...], images: Path, work: Path) -> None:
    """Train a model with row-wise Adagrad, quantize and plot it: tables, norms, categories, hidden (.png)."""
    model = (*data, *SMALL_MODEL)
    run = _train(
        *(*model, "--mini-batch-size=512", "--optimizer=rwsadagrad", "--learning-rate=0.02"),
        *(*REPORTS, "--save-model=model.pt"),
        cwd=work,
    )
    print(f"row-wise Adagrad, one epoch: best test AUC {_last(r'best auc ([0-9.]+)', run)}")
    load = (*model, "--load-model=model.pt", "--test-mini-batch-size=4096")
    for bits in (8, 4):
        quantized = _train(
            *(*load, "--inference-only", "--mlperf-logging"),
            *("--quantize-mlp-with-bit=8", f"--quantize-emb-with-bit={bits}"),
            cwd=work,
        )
        for pattern in (r"MLPs: .*", r"embedding tables: .*", r"AUC: .*"):
            print(_find(pattern, quantized))
    _tool("visualize", *load, f"--output-dir={images}", cwd=work)


def _train(*flags: str, cwd: Path) -> str:
    return _run(sys.executable, str(ROOT / "dlrm_s_pytorch.py"), *flags, cwd=cwd)


def _tool(name: str, *flags: str, cwd: Path) -> str:
    return _run(sys.executable, str(ROOT / "tools" / f"{name}.py"), *flags, cwd=cwd)


def _run(*command: str, cwd: Path, **variables: str) -> str:
    """Return the output of a program (stdout and stderr). If it fails, exit with the last line of it."""
    environment = {**os.environ, "DLRM_PYTHON": sys.executable, **variables}
    done = subprocess.run(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"make_figures.py: error: {' '.join(command)}: {done.stdout.strip().rpartition(chr(10))[2]}")
    return done.stdout


def _find(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    return found[0] if found else ""


def _last(pattern: str, text: str) -> str:
    return str(re.findall(pattern, text)[-1])


if __name__ == "__main__":
    sys.exit(run_program("make_figures.py", main))
