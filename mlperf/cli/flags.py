"""The flags of dlrm_s_pytorch.py: names, kinds, defaults and the range of each value."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from mlperf.benchmarks import DEFAULT_EDITION, EDITIONS, STATUSES
from mlperf.cli.program import program_name
from mlperf.settings.settings import PRECISIONS
from mlperf.util.errors import UsageError
from mlperf.version import __version__


class Parser(argparse.ArgumentParser):
    """Reports a wrong call in one line, by UsageError; flags are written out, and help shows defaults."""

    def __init__(self, prog: str, description: str | None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        self.add_argument("--version", action="version", version=f"%(prog)s {__version__}")

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with argparse's message, which names the flag."""
        raise UsageError(message.removeprefix("argument "))


def integer(least: int, *also: int) -> Callable[[str], int]:
    """Return a parser of whole numbers >= `least`, or one of `also`."""

    def parse(text: str) -> int:
        allowed = f"a whole number of at least {least}" + "".join(f", or {value}" for value in also)
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {allowed}") from None
        if (value < least and value not in also) or value > 2**63 - 1:
            raise argparse.ArgumentTypeError(f"{text} is not {allowed}")
        return value

    return parse


def real(least: float = -math.inf, most: float = math.inf, *, open_end: bool = False) -> Callable[[str], float]:
    """Return a parser of finite numbers from `least` to `most` (`open_end`: `most` itself excluded)."""

    def parse(text: str) -> float:
        allowed = f"a number in [{least:g}, {most:g}{')' if open_end else ']'}"
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {allowed}") from None
        if not math.isfinite(value) or not least <= value <= most or (open_end and value == most):
            raise argparse.ArgumentTypeError(f"{text} is not {allowed}")
        return value

    return parse


def file_name(text: str) -> Path:
    """Parse a path that ends in a name, which others are made from."""
    path = Path(text)
    if path.name in ("", ".."):
        raise argparse.ArgumentTypeError(f"{text!r} names a folder; allowed is the name or the prefix of files")
    return path


def positive(text: str) -> float:
    """Parse a finite number > 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number greater than 0")
    return value


def integers(text: str) -> tuple[int, ...]:
    """Parse whole numbers >= 1 separated by dashes."""
    try:
        values = tuple(int(part) for part in text.split("-"))
    except ValueError:
        values = (0,)
    if min(values) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers >= 1 separated by dashes")
    return values


def two_weights(text: str) -> tuple[float, float]:
    """Parse two finite numbers >= 0 separated by a dash."""
    try:
        without_click, with_click = (float(part) for part in re.split(r"(?<![eE])-", text))
    except ValueError:
        without_click = with_click = math.nan
    if not (math.isfinite(without_click + with_click) and min(without_click, with_click) >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not two numbers >= 0 separated by a dash")
    return without_click, with_click


def boolean(text: str) -> bool:
    """Parse true/false, 1/0 or yes/no in any case."""
    values = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is not true or false, 1 or 0, yes or no")
    return values[text.lower()]


def make_parser() -> Parser:
    """Return the parser of every flag, defaults as users' scripts rely on them."""
    parser = Parser(
        program_name("dlrm_s_pytorch.py"), "Train or evaluate DLRM, the MLPerf recommendation benchmark."
    )
    _add_model_flags(parser)
    _add_data_flags(parser)
    _add_training_flags(parser)
    _add_report_flags(parser)
    _add_mlperf_flags(parser)
    return parser


def _switch(group: argparse._ArgumentGroup, name: str, text: str) -> None:
    group.add_argument(name, action="store_true", help=text)


def _bool(group: argparse._ArgumentGroup, name: str, default: bool, text: str) -> None:
    group.add_argument(name, type=boolean, nargs="?", const=True, default=default, help=text)


def _add_model_flags(parser: Parser) -> None:
    group = parser.add_argument_group("model")
    add = group.add_argument
    add("--arch-sparse-feature-size", type=integer(1), default=2, help="embedding dimension")
    add("--arch-embedding-size", type=integers, default=(4, 3, 2), help="rows per table, for random data")
    add("--arch-mlp-bot", type=integers, default=(4, 3, 2), help="bottom MLP widths")
    add("--arch-mlp-top", type=integers, default=(4, 2, 1), help="top MLP widths without the first")
    add("--arch-interaction-op", choices=("dot", "cat", "sum"), default="dot", help="feature interaction")
    _switch(group, "--arch-interaction-itself", "dot: keep the diagonal")
    add("--weighted-pooling", choices=("fixed", "learned"), help="per-row pooling weights")
    add("--activation-function", choices=("relu", "sigmoid", "tanh"), default="relu", help="hidden layers")
    add(
        "--mlp-init",
        choices=("auto", "normal", "uniform"),
        default="auto",
        help="auto: uniform for random data",
    )
    add("--embedding-init", choices=("numpy", "device"), default="numpy", help="generator of the tables")
    _switch(group, "--md-flag", "mixed-dimension embeddings")
    add("--md-threshold", type=integer(0), default=200, help="compress tables of more rows")
    add("--md-temperature", type=real(0, 1), default=0.3, help="exponent of the popularity")
    _switch(group, "--md-round-dims", "dimensions to powers of two")
    _switch(group, "--qr-flag", "quotient-remainder embeddings")
    add("--qr-threshold", type=integer(0), default=200, help="compress tables of more rows")
    add("--qr-operation", choices=("mult", "add", "concat"), default="mult", help="how the two are combined")
    add("--qr-collisions", type=integer(1), default=4, help="rows that share a quotient")
    add("--loss-function", choices=("mse", "bce", "wbce"), default="mse", help="training loss")
    add("--loss-weights", type=two_weights, default=(1.0, 1.0), help="wbce: weight of labels 0 and 1")
    add("--loss-threshold", type=real(0, 0.5, open_end=True), default=0.0, help="clamp predictions")


def _add_data_flags(parser: Parser) -> None:
    group = parser.add_argument_group("data")
    add = group.add_argument
    generations = ("random", "synthetic", "dataset", "internal")
    add("--data-generation", choices=generations, default="random", help="where batches come from")
    add("--data-size", type=integer(1), default=1, help="random data: samples")
    add("--num-batches", type=integer(0), default=0, help="stop after this many batches an epoch")
    add("--num-indices-per-lookup", type=integer(1), default=10, help="random data: most ids per table")
    _bool(group, "--num-indices-per-lookup-fixed", False, "random data: always that many")
    _bool(group, "--round-targets", False, "random data: targets 0 or 1")
    add("--rand-data-dist", choices=("uniform", "gaussian"), default="uniform", help="random data: of indices")
    add("--rand-data-min", type=real(0, 1), default=0.0, help="gaussian: least share of the table")
    add("--rand-data-max", type=real(0, 1), default=1.0, help="gaussian: most")
    add("--rand-data-mu", type=real(), default=-1.0, help="gaussian: mean (-1: the middle of min and max)")
    add("--rand-data-sigma", type=positive, default=1.0, help="gaussian: standard deviation")
    add(
        "--data-trace-file",
        type=Path,
        help="synthetic: distribution per table, j standing for its number (./input/dist_emb_j.log)",
    )
    _bool(group, "--data-trace-enable-padding", False, "synthetic: pad the trace")
    add("--data-set", choices=("kaggle", "terabyte"), default="kaggle", help="which Criteo data set")
    add("--raw-data-file", type=file_name, help="train.txt, or the prefix of day_0 ... day_23")
    add("--processed-data-file", type=file_name, help="the prepared data, made from the raw when missing")
    add("--data-randomize", choices=("total", "day", "none"), default="total", help="shuffle when preparing")
    add("--data-sub-sample-rate", type=real(0, 1, open_end=True), default=0.0, help="share of label 0 dropped")
    add("--max-ind-range", type=integer(1, -1), default=-1, help="ids modulo this, -1: no limit")
    _switch(group, "--memory-map", "accepted: the data is always out of core")
    _switch(group, "--dataset-multiprocessing", "accepted: preparation always uses all cores")
    add("--num-workers", type=integer(0), default=0, help="threads that read ahead (0: one, for a GPU four)")
    add("--test-num-workers", type=integer(0, -1), default=-1, help="for test data (-1: as in training)")
    add("--mini-batch-size", type=integer(1), default=1, help="samples per batch")
    add("--test-mini-batch-size", type=integer(1, -1), default=-1, help="for test data (-1: as in training)")
    _switch(group, "--mlperf-bin-loader", "read the single binary file")
    _switch(group, "--mlperf-bin-shuffle", "visit its batches in random order")


def _add_training_flags(parser: Parser) -> None:
    group = parser.add_argument_group("training")
    add = group.add_argument
    add("--nepochs", type=integer(1), default=1, help="passes over the training data")
    add("--learning-rate", type=positive, default=0.01, help="base learning rate")
    add("--optimizer", choices=("sgd", "adagrad", "rwsadagrad"), default="sgd", help="on every device")
    add("--lr-num-warmup-steps", type=integer(0), default=0, help="linear warm-up")
    add("--lr-decay-start-step", type=integer(0), default=0, help="first step of the decay")
    add("--lr-num-decay-steps", type=integer(0), default=0, help="steps of the decay, 0: none")
    add("--mlperf-grad-accum-iter", type=integer(1), default=1, help="batches summed before a step")
    add("--numpy-rand-seed", type=integer(0), default=123, help="the seed of the run")
    add("--test-freq", type=integer(1, -1), default=-1, help="evaluate every this many batches")
    _switch(group, "--inference-only", "evaluate on the test split and stop")
    add("--load-model", type=Path, help="checkpoint to continue or to evaluate")
    add("--save-model", type=Path, help="checkpoint written at each improvement")
    _switch(group, "--use-gpu", "an error where no GPU is visible")
    add("--precision", choices=PRECISIONS, default="fp32", help="of matrix products; tf32: on a GPU only")
    _bool(group, "--sync-dense-params", True, "accepted")
    add("--local_rank", type=int, default=-1, help="accepted")
    add("--dist-backend", default="", help="accepted")


def _add_report_flags(parser: Parser) -> None:
    group = parser.add_argument_group("reports")
    add = group.add_argument
    add("--print-precision", type=integer(0), default=5, help="digits in debug mode")
    add("--print-freq", type=integer(1), default=1, help="a line every this many batches")
    _switch(group, "--print-time", "with ms per iteration")
    _switch(group, "--print-wall-time", "with the time of day")
    _switch(group, "--debug-mode", "also print architecture, data and parameters")
    _switch(group, "--enable-profiling", "PyTorch profiler")
    _switch(group, "--plot-compute-graph", "draw the graph to a file")
    add(
        "--tensor-board-filename",
        type=Path,
        nargs="?",
        const=Path("run_kaggle_pt"),
        help="TensorBoard folder (without a value run_kaggle_pt)",
    )
    add("--quantize-mlp-with-bit", type=int, choices=(8, 16, 32), default=32, help="inference: MLPs")
    add("--quantize-emb-with-bit", type=int, choices=(4, 8, 32), default=32, help="inference: tables")
    _switch(group, "--save-onnx", "export the model")


def _add_mlperf_flags(parser: Parser) -> None:
    group = parser.add_argument_group("MLPerf")
    add = group.add_argument
    _switch(group, "--mlperf-logging", "compliance log, and all six test metrics")
    add("--mlperf-acc-threshold", type=real(0, 1), default=0.0, help="stop at this accuracy, 0: off")
    add("--mlperf-auc-threshold", type=real(0, 1), default=0.0, help="stop at this AUC, 0: off")
    add("--mlperf-log-file", type=Path, default=Path("mlperf_dlrm.log"), help="the compliance log")
    add("--mlperf-edition", choices=tuple(EDITIONS), default=DEFAULT_EDITION.name, help="the log's rules")
    add("--mlperf-division", choices=("closed", "open"), default="closed", help="logged as given")
    add("--mlperf-submitter", default="reference", help="organization in the log")
    add("--mlperf-status", choices=STATUSES, default="onprem", help="availability in the log")
    add("--mlperf-platform", default="unknown", help="system name in the log")
    _bool(group, "--mlperf-cache-cleared", False, "logged: whether the page cache was dropped before")
