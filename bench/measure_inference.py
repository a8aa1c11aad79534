"""Time scoring in several precisions: python bench/measure_inference.py [--use-gpu].

For random tables, or the model of a checkpoint, and for each batch size the contenders take turns, in one process
and with the same number of threads:

  - floor: a lower bound, the matrix products alone plus the time to read the embedding rows at copy bandwidth
  - this project, as --inference-only scores with --precision, --quantize-mlp-with-bit and --quantize-emb-with-bit
  - PyTorch: one nn.EmbeddingBag per table and nn.Linear, or their quantized forms
  - onnxruntime, with the exported model and with its own quantization

Prints the median, 95th and 99th percentile of the latency of a batch, from inputs in host memory to probabilities
in host memory, and the mean difference of the probabilities from those of the first variant. What cannot be
measured is printed with the reason. --scenario=offline prints the throughput if all samples are there,
--scenario=server the latencies of samples that arrive at random times.
"""

from __future__ import annotations

import checkout  # noqa: F401

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from command_line import named_values, script_parser
from inference_contenders import ON_CPU, ON_GPU, VARIANTS, Contender, contenders
from inference_subject import Subject, checkpoint_subject, random_subject
from inference_tables import Plan, print_batches, print_offline, print_server
from measure_training import machine
from mlperf.settings.kinds import at_least, positive
from mlperf.util.errors import UsageError
from mlperf.util.program import run_program
from training_shapes import SHAPES, Shape

BATCH_SIZES = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536]
ROWS = 100_000  # per table at most
SCENARIOS = {"batches": print_batches, "offline": print_offline, "server": print_server}
REDUCED_SAMPLES = 64


def main() -> None:
    """Print the tables. UsageError or RunError if something is wrong."""
    args = parse_arguments()
    device = torch.device("cuda" if args.use_gpu else "cpu")
    names = list(ON_GPU if args.use_gpu else ON_CPU)
    if args.variants is not None:
        known = [name for name in VARIANTS if args.use_gpu or name != "tf32"]
        names = named_values("--variants", args.variants, known)
    plan = Plan(args.batch_sizes, args.seconds, args.max_batch, args.rate, args.latency_bound)
    print(f"{machine(device)}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
    for subject in subjects(args, device):
        print(subject.title)
        with tempfile.TemporaryDirectory() as folder:
            found = list(contenders(subject, names, Path(folder)))
            SCENARIOS[args.scenario](subject, [one for one in found if isinstance(one, Contender)], plan)
        for one in found:
            if not isinstance(one, Contender):
                print(f"  {one.name:<42}not measured: {one.reason}", flush=True)


def parse_arguments() -> argparse.Namespace:
    """Return the flags. UsageError if one is wrong or contradicts another."""
    parser = script_parser(__file__, __doc__)
    shapes = ", ".join(shape.name for shape in inference_shapes(ROWS))
    parser.add_argument("--use-gpu", action="store_true", help="measure on the first GPU")
    parser.add_argument("--shapes", help=f"models with random tables, one or several of {shapes} (default: all)")
    parser.add_argument("--rows", type=at_least(1), default=ROWS, metavar="N", help="rows of a table at most")
    parser.add_argument("--load-model", type=Path, metavar="FILE", help="measure the model of a checkpoint")
    parser.add_argument("--data", type=Path, metavar="X", help="prepared data, whose test split is scored with it")
    parser.add_argument("--variants", help=f"one or several of {', '.join(VARIANTS)} (default: all of the device)")
    parser.add_argument(
        "--batch-sizes",
        type=sizes_in,
        default=BATCH_SIZES,
        metavar="N,N",
        help="default: 1 to 65536 in powers of 4",
    )
    parser.add_argument("--seconds", type=positive, default=1.0, metavar="X", help="time for each measurement")
    parser.add_argument("--scenario", choices=list(SCENARIOS), default="batches", help="default: batches")
    parser.add_argument("--rate", type=rates_in, metavar="R,R", help="server: samples per second that arrive")
    parser.add_argument("--max-batch", type=at_least(1), default=1024, metavar="N", help="server: largest batch")
    parser.add_argument(
        "--latency-bound",
        type=positive,
        metavar="MS",
        help="server: find the highest rate with a p99 below this",
    )
    parser.add_argument("--reduced", action="store_true", help="tiny sizes, to test this script")
    args = parser.parse_args()
    if (args.load_model is None) != (args.data is None):
        raise UsageError("--load-model and --data belong together: pass both, or --shapes")
    if args.load_model is not None and args.shapes is not None:
        raise UsageError("--shapes cannot be combined with --load-model, which has its own model")
    for name in ("rate", "latency_bound"):
        if getattr(args, name) is not None and args.scenario != "server":
            raise UsageError(f"--{name.replace('_', '-')} requires --scenario=server")
    if args.reduced:
        args.rows, args.seconds, args.max_batch = 1000, min(args.seconds, 0.05), REDUCED_SAMPLES
        args.batch_sizes = [size for size in args.batch_sizes if size <= REDUCED_SAMPLES] or [1]
    if args.use_gpu and not torch.cuda.is_available():
        raise UsageError("--use-gpu: no GPU is visible to PyTorch")
    return args


def sizes_in(text: str) -> list[int]:
    """Return whole numbers separated by commas. ArgumentTypeError if one is not at least 1."""
    return [at_least(1)(part) for part in text.split(",")]


def rates_in(text: str) -> list[float]:
    """Return positive numbers separated by commas. ArgumentTypeError if one is not positive."""
    return [positive(part) for part in text.split(",")]


def inference_shapes(rows: int) -> list[Shape]:
    """Return the models of the benchmarks with tables of at most `rows` rows."""
    found = {}
    for shape in SHAPES:
        name = shape.name.partition("-")[0]
        found[name] = Shape(name, 1, shape.workload, limit=rows)
    return list(found.values())


def subjects(args: argparse.Namespace, device: torch.device) -> Iterator[Subject]:
    """Yield what is measured."""
    samples = max([*args.batch_sizes, args.max_batch])
    if args.load_model is not None:
        yield checkpoint_subject(args.load_model, args.data, samples, use_gpu=args.use_gpu)
        return
    shapes = inference_shapes(args.rows)
    known = [shape.name for shape in shapes]
    names = known if args.shapes is None else named_values("--shapes", args.shapes, known)
    for shape in shapes:
        if shape.name in names:
            yield random_subject(shape, samples, device)


if __name__ == "__main__":
    sys.exit(run_program("measure_inference.py", main))
