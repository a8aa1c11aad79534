"""Pictures of a trained model and its data: tables, norms, categories, and the last hidden layer.

    %(prog)s --load-model=model.pt <flags the model was trained with>

Writes tables.png (rows of embedding tables in two dimensions, coloured by click rate), norms.png (the norms of
rows against how often their ids occur), categories.png (how often the ids of each table occur) and hidden.png
(test samples in the model's last hidden layer, coloured by label). All other flags are those of dlrm_s_pytorch.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

from mlperf.cli.program import program_name, run_program
from mlperf.settings.argument_parser import Parser
from mlperf.settings.kinds import at_least
from mlperf.util.errors import RunError, UsageError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 0 done, 1 failed, 2 wrong call."""
    name = program_name("visualize.py")
    return run_program(name, partial(_visualize, name, arguments))


def make_parser(name: str) -> Parser:
    """Return the parser of this program, without the trainer's flags that it also takes."""
    usage = f"{name} [options] --load-model PATH [flags of dlrm_s_pytorch.py]"
    parser = Parser(name, __doc__, usage=usage)
    add = parser.add_argument
    add("--output-dir", type=Path, default=Path("visualization"), help="where the pictures go")
    add("--method", choices=("umap", "tsne"), default="umap", help="how vectors are brought to two dimensions")
    add("--most-tables", type=at_least(1), default=3, help="tables to draw, by their most frequent ids")
    add("--most-rows", type=at_least(10), default=1500, help="rows of a table to draw, the most frequent first")
    add("--most-samples", type=at_least(100), default=200_000, help="training samples to count ids in")
    add("--most-points", type=at_least(10), default=3000, help="test samples to draw")
    return parser


def _parse(name: str, arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Return the flags of this program, and the others, which are the trainer's."""
    args, others = make_parser(name).parse_known_args(arguments)
    if not any(other.startswith("--load-model") for other in others):
        raise UsageError("--load-model: needed, the checkpoint to draw")
    if "--data-generation=dataset" not in others and ("--data-generation", "dataset") not in pairwise(others):
        raise UsageError("--data-generation=dataset: needed, the pictures show its ids and clicks")
    return args, others


def _visualize(name: str, arguments: Sequence[str] | None) -> int:
    args, others = _parse(name, arguments)

    from mlperf.cli.train import parse
    from mlperf.plots import model_pictures
    from mlperf.plots.packages import require_packages
    from mlperf.runner.benchmark import load_for_inference

    # Batches are only read here: large ones, whatever the model was trained with.
    settings = parse([*others, "--inference-only", "--mini-batch-size=4096", "--test-mini-batch-size=1024"])
    require_packages("--output-dir", "matplotlib")
    if args.method == "umap":
        _require_umap()
    model, splits = load_for_inference(settings)
    assert splits.test is not None
    counts = model_pictures.count_ids(splits.train, model.architecture.rows_per_table, args.most_samples)
    try:
        args.output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"--output-dir={args.output_dir}: cannot be made: {error.strerror}") from None
    tables = model_pictures.choose_tables(counts, args.most_tables)
    vectors, labels = model_pictures.last_hidden_layer(model, splits.test, args.most_points)
    pictures = {
        "tables": model_pictures.draw_tables(model, counts, tables, args.most_rows, args.method),
        "norms": model_pictures.draw_norms(model, counts, tables),
        "categories": model_pictures.draw_categories(counts),
        "hidden": model_pictures.draw_hidden(vectors, labels, args.method),
    }
    for picture, figure in pictures.items():
        path = args.output_dir / f"{picture}.png"
        figure.savefig(path, dpi=130)
        print(path)
    return 0


def _require_umap() -> None:
    try:
        import umap  # noqa: F401
    except ImportError:
        raise UsageError("--method=umap: needs umap-learn (pip install umap-learn); allowed: tsne") from None


if __name__ == "__main__":
    sys.exit(main())
