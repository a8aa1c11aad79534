"""Convert a checkpoint: a file to the folder of a sharded one, or the other way.

    %(prog)s model.pt sharded
    %(prog)s sharded model.pt

Several processes save and load folders. The result has the same entries and, to the bit, the same weights and
state of the optimizer. The tensors are converted one by one, so that the memory of the largest table suffices. An
older checkpoint at the place of the result is replaced when the new one is complete.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mlperf.distributed.launchers import require_one_process
from mlperf.settings.argument_parser import Parser
from mlperf.settings.kinds import file_or_folder
from mlperf.util.errors import RunError, UsageError
from mlperf.util.failures import system_failures
from mlperf.util.output_files import named, require_distinct, require_replaceable_folder, require_writable_file
from mlperf.util.program import program_name, run_program
from mlperf.util.progress import Progress

if TYPE_CHECKING:
    import torch


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit status: 0 success, 1 failure, 2 usage error."""
    name = program_name("convert_checkpoint.py")
    return run_program(name, partial(_convert, name, arguments))


def make_parser(name: str) -> Parser:
    """Return the parser of this program."""
    parser = Parser(name, __doc__)
    parser.add_argument("source", type=file_or_folder, help="checkpoint: a file, or the folder of a sharded one")
    parser.add_argument(
        "result", type=file_or_folder, help="folder if the source is a file, file if it is a folder"
    )
    return parser


def _convert(name: str, arguments: Sequence[str] | None) -> int:
    args = make_parser(name).parse_args(arguments)
    require_one_process()
    source: Path = args.source
    result: Path = args.result
    with system_failures(source, "the checkpoint cannot be read"):
        is_folder, exists = source.is_dir(), source.exists()
    if not exists:
        raise RunError(f"{source}: no such file or folder")

    from mlperf.training.checkpoint_place import named_place, reserved
    from mlperf.training.convert_checkpoint import convert

    require_distinct(named("source", source), named_place("result", result, is_folder=not is_folder))
    if is_folder:
        require_writable_file("result", result)
    else:
        if result.is_file():
            raise UsageError(f"result {result} is a file; a checkpoint in a file is converted to a folder")
        require_replaceable_folder("result", result)
    progress: list[Progress] = []

    def start(tensors: list[torch.Tensor]) -> Callable[[torch.Tensor], None]:
        progress.append(Progress(str(source), sum(tensor.nbytes for tensor in tensors)))
        return lambda tensor: progress[0].add(tensor.nbytes, len(tensor) if tensor.dim() else 0)

    with reserved("result", result):
        try:
            convert(source, result, start)
        except BaseException:
            for each in progress:
                each.close(finished=False)
            raise
    progress[0].close()
    print(f"{result}: converted from {source}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
