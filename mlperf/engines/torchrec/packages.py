"""The packages of this engine. A release of FBGEMM loads beside one of PyTorch, and no package says which."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module, metadata

import torch

from mlperf.util.errors import RunError

PYTORCH = "2.13"
TORCHREC = "1.8.0"
FBGEMM = "1.8.0"
# FBGEMM is one module in two packages: with code for GPUs, and without.
_FOR_GPUS, _FOR_CPUS = "fbgemm-gpu", "fbgemm-gpu-cpu"

# Loggers that report as warnings what happens in every run: that a KeyedJaggedTensor is made (torch.fx), and which
# processes are connected.
_TALKATIVE = ("torch.fx._symbolic_trace", "torchrec.distributed.comm")
# Functions by whose old names TorchRec calls PyTorch.
_OLD_NAMES = r"`torch\.distributed\.(reduce_scatter_tensor|all_gather_into_tensor)` is deprecated"


def require_torchrec(*, use_gpu: bool) -> None:
    """Import TorchRec. RunError if it or FBGEMM is missing, is another release, or does not load."""
    package = _FOR_GPUS if use_gpu else _FOR_CPUS
    if not torch.__version__.startswith(f"{PYTORCH}."):
        raise _failure(f"PyTorch {torch.__version__} is installed", use_gpu=use_gpu)
    _require("torchrec", installed_version("torchrec"), TORCHREC, use_gpu=use_gpu)
    # Either of them serves a run on CPUs.
    found = installed_version(package) or (None if use_gpu else installed_version(_FOR_GPUS))
    _require(package, found, FBGEMM, use_gpu=use_gpu)
    try:
        with _silence():
            import_module("torchrec")
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", message=_OLD_NAMES, category=FutureWarning)
    except Exception as error:  # of any type: FBGEMM loads libraries, and TorchRec imports the packages it needs
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise _failure(f"torchrec {TORCHREC} does not load: {reason}", use_gpu=use_gpu) from None


def installed_version(package: str) -> str | None:
    """Return the installed version of a package, None if it is missing."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _require(package: str, found: str | None, wanted: str, *, use_gpu: bool) -> None:
    if found is None:
        raise _failure(f"{package} is not installed", use_gpu=use_gpu)
    if found.partition("+")[0] != wanted:
        raise _failure(f"{package} {found} is installed", use_gpu=use_gpu)


def _failure(problem: str, *, use_gpu: bool) -> RunError:
    package = _FOR_GPUS if use_gpu else _FOR_CPUS
    file = "requirements-distributed-gpu.txt" if use_gpu else "requirements-distributed.txt"
    return RunError(
        f"several processes and --engine=torchrec need PyTorch {PYTORCH} with torchrec {TORCHREC} and {package} "
        f"{FBGEMM}, but {problem} in this Python ({sys.executable}): run tools/setup.sh {file} and "
        f"use .venv/bin/python, or pip install --no-deps -r {file}"
    )


@contextmanager
def _silence() -> Iterator[None]:
    """Keep FBGEMM from logging which libraries it loads, with which Python's logging starts to write to stderr."""
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
