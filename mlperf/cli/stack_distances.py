"""Compute the stack-distance distribution of a reference trace, or generate a trace from a distribution.

    %(prog)s profile input/trace.log dist_emb_0.log
    %(prog)s generate dist_emb_0.log trace.log --length=1000

A text trace has whole numbers separated by commas, spaces or newlines; a binary trace (--binary) has
little-endian unsigned 64-bit integers. A distribution has three lines: the distinct accesses, the distances, and
their cumulative probabilities.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlperf.distributed.launchers import require_one_process
from mlperf.settings.argument_parser import Parser
from mlperf.settings.dataset import MAX_SEED
from mlperf.settings.kinds import at_least, file_name, whole_between
from mlperf.util.errors import RunError, UsageError
from mlperf.util.failures import system_failures
from mlperf.util.files import atomic_file, read_regular
from mlperf.util.output_files import named, require_distinct, require_writable_file
from mlperf.util.program import program_name, run_program
from mlperf.util.strict_json import shown

if TYPE_CHECKING:
    from mlperf.data.synthetic.stack_distances import IntArray

_CHUNK = 1 << 20  # references generated at a time
_LENGTH, _SEED = 1000, 123  # defaults of generate


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 0 success, 1 failure, 2 usage error."""
    name = program_name("stack_distances.py")
    return run_program(name, partial(_convert, name, arguments))


def make_parser(name: str) -> Parser:
    """Return the parser of this program."""
    parser = Parser(name, __doc__)
    parser.add_argument(
        "what",
        choices=("profile", "generate"),
        help="conversion: trace to distribution, or distribution to trace",
    )
    parser.add_argument("source", type=file_name, help="input file")
    parser.add_argument("result", type=file_name, help="output file")
    parser.add_argument("--binary", action="store_true", help="the trace is binary")
    parser.add_argument("--padding", action="store_true", help="like --data-trace-enable-padding")
    length, seed = (
        f"with generate: number of references (default: {_LENGTH})",
        f"with generate: random seed (default: {_SEED})",
    )
    parser.add_argument("--length", type=at_least(1), help=length)
    parser.add_argument("--seed", type=whole_between(0, MAX_SEED), help=seed)
    return parser


def _convert(name: str, arguments: Sequence[str] | None) -> int:
    args = make_parser(name).parse_args(arguments)
    require_one_process()
    for flag, value in (("--length", args.length), ("--seed", args.seed)):
        if args.what == "profile" and value is not None:
            raise UsageError(f"{flag}={value} requires generate: profile reads the whole trace")
    length, seed = args.length or _LENGTH, _SEED if args.seed is None else args.seed

    import numpy as np

    from mlperf.data.synthetic.stack_distances import StackDistances, TraceGenerator

    require_distinct(named("source", args.source), named("result", args.result))
    require_writable_file("result", args.result)
    if args.what == "profile":
        with system_failures(args.source, "cannot be profiled"):
            distribution = StackDistances.of_trace(_read_trace(args.source, args.binary), padding=args.padding)
        _write(args.result, [distribution.text().encode()])
        return 0
    given = StackDistances.read(args.source)
    generator = TraceGenerator(given, np.random.default_rng(seed), padding=args.padding)
    pieces = (generator.draw(min(_CHUNK, length - done)) for done in range(0, length, _CHUNK))
    if args.binary:
        _write(args.result, (piece.astype("<u8").tobytes() for piece in pieces))
    else:
        _write(args.result, _as_text(pieces))
    return 0


def _as_text(pieces: Iterable[IntArray]) -> Iterator[bytes]:
    """Yield the text of a trace: numbers separated by commas, in one line."""
    separator = ""
    for piece in pieces:
        yield (separator + ", ".join(map(str, piece.tolist()))).encode()
        separator = ", "
    yield b"\n"


def _write(path: Path, parts: Iterable[bytes]) -> None:
    with system_failures(path, "cannot be written"), atomic_file(path) as file:
        file.writelines(parts)


def _read_trace(path: Path, binary: bool) -> IntArray:
    import numpy as np

    try:
        data = read_regular(path, allow_pipes=True)
    except OSError as error:
        raise RunError(f"{path}: cannot read the trace: {error.strerror}") from None
    if binary:
        if len(data) % 8:
            raise RunError(f"{path}: {len(data)} bytes, not a whole number of 64-bit integers")
        trace = np.frombuffer(data, "<u8")
        if (trace > np.iinfo(np.int64).max).any():
            raise RunError(f"{path}: a reference of 2^63 or more")
        trace = trace.astype(np.int64)
    else:
        word = b""
        try:
            trace = np.array([int(word := each) for each in data.replace(b",", b" ").split()], dtype=np.int64)
        except ValueError:
            found = shown(word.decode("utf-8", "replace"))
            raise RunError(f"{path}: {found} is not a whole number; expected numbers and commas") from None
        except OverflowError:
            raise RunError(f"{path}: a reference of 2^63 or more") from None
    if len(trace) == 0:
        raise RunError(f"{path}: an empty trace")
    if trace.min() < 0:
        raise RunError(f"{path}: a negative reference, {trace.min()}")
    return trace


if __name__ == "__main__":
    sys.exit(main())
