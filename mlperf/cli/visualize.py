"""Plot a trained model and its data: tables, norms, categories, and the last hidden layer.

    %(prog)s --load-model=model.pt <flags the model was trained with>

Writes tables.png (embedding rows projected to two dimensions, coloured by click rate), norms.png (norms of rows
against the frequency of their ids), categories.png (frequencies of the ids of each table) and hidden.png (test
samples in the last hidden layer, coloured by label). All other flags are those of dlrm_s_pytorch.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

from mlperf.distributed.launchers import require_one_process
from mlperf.settings.argument_parser import Parser
from mlperf.settings.kinds import at_least
from mlperf.util.errors import UsageError
from mlperf.util.failures import system_failures
from mlperf.util.output_files import NamedFile, require_writable_folder
from mlperf.util.program import program_name, run_program

_FIGURES = ("tables", "norms", "categories", "hidden")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 0 success, 1 failure, 2 usage error."""
    name = program_name("visualize.py")
    return run_program(name, partial(_visualize, name, arguments))


def make_parser(name: str) -> Parser:
    """Return the parser of this program, without the trainer flags that it also accepts."""
    usage = f"{name} [options] --load-model PATH [trainer flags]"
    parser = Parser(name, __doc__, usage=usage)
    add = parser.add_argument
    add("--output-dir", type=Path, default=Path("visualization"), help="output folder for the figures")
    add("--method", choices=("umap", "tsne"), default="umap", help="projection to two dimensions")
    add(
        "--most-tables",
        type=at_least(1),
        default=3,
        help="maximum number of tables",
    )
    add(
        "--most-rows",
        type=at_least(10),
        default=1500,
        help="maximum number of rows per table, most frequent first",
    )
    add(
        "--most-samples",
        type=at_least(100),
        default=200_000,
        help="training samples in which ids are counted",
    )
    add("--most-points", type=at_least(10), default=3000, help="maximum number of test samples to draw")
    return parser


def _parse(name: str, arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Return the arguments of this program and the remaining flags, which are for the trainer."""
    args, others = make_parser(name).parse_known_args(arguments)
    has_file = any(other.startswith("--config") for other in others)  # of flags
    if not has_file and not any(other.startswith("--load-model") for other in others):
        raise UsageError("--load-model is required: the checkpoint to plot")
    if any(other.startswith("--save-model") for other in others):
        raise UsageError("--save-model: nothing is trained; omit this flag of the training")
    if has_file:
        return args, others
    if "--data-generation=dataset" not in others and ("--data-generation", "dataset") not in pairwise(others):
        raise UsageError("--data-generation=dataset is required: the data set to plot")
    return args, others


def _visualize(name: str, arguments: Sequence[str] | None) -> int:
    args, others = _parse(name, arguments)
    require_one_process()

    from mlperf.cli.train import parse
    from mlperf.plots import model_figures
    from mlperf.plots.packages import require_packages, save_figure
    from mlperf.runner.benchmark import load_for_inference
    from mlperf.runner.memory import resource_failures

    # Use large batches: they are only read.
    settings = parse([*others, "--inference-only", "--mini-batch-size=4096", "--test-mini-batch-size=1024"])
    if settings.load_model is None:
        raise UsageError("--load-model is required: the checkpoint to plot")
    require_packages("plotting", "matplotlib")
    if args.method == "umap":
        _require_umap()
    files = {name: args.output_dir / f"{name}.png" for name in _FIGURES}
    require_writable_folder("--output-dir", args.output_dir)
    outputs = [NamedFile(path, f"{path.name} of --output-dir={args.output_dir}") for path in files.values()]
    model, splits = load_for_inference(settings, outputs)
    assert splits.test is not None
    with resource_failures():
        counts = model_figures.count_ids(splits.train, model.architecture.rows_per_table, args.most_samples)
        tables = model_figures.choose_tables(counts, args.most_tables)
        vectors, labels = model_figures.last_hidden_layer(model, splits.test, args.most_points)
        figures = {
            "tables": model_figures.draw_tables(model, counts, tables, args.most_rows, args.method),
            "norms": model_figures.draw_norms(model, counts, tables),
            "categories": model_figures.draw_categories(counts),
            "hidden": model_figures.draw_hidden(vectors, labels, args.method),
        }
    with system_failures(args.output_dir, "the figures cannot be written"):
        args.output_dir.mkdir(parents=True, exist_ok=True)
        for figure_name, figure in figures.items():
            save_figure(figure, files[figure_name], dpi=130)
            print(files[figure_name])
    return 0


def _require_umap() -> None:
    try:
        import umap  # noqa: F401
    except ImportError:
        raise UsageError("--method=umap requires umap-learn (pip install umap-learn); or use tsne") from None


if __name__ == "__main__":
    sys.exit(main())
