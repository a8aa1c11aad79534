"""Schema of checkpoints: what each entry may be, and which entries resuming needs.

An evaluation uses `state_dict` and `model_flags` only; the other entries are not checked for it. Numbers may be
those of Python or of NumPy, which the original implementation stored. Tensors in their place, bool as a number and
real numbers in place of whole ones are refused, not converted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlperf.settings.dataset import MAX_SEED
from mlperf.settings.kinds import MAX_COUNT
from mlperf.util.errors import RunError
from mlperf.util.printable import shown, shown_name

CONTINUATION = "continuation"
FLAGS = "model_flags"

_EVALUATE = "(use --inference-only to evaluate)"
_MAX_FLOAT32 = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Kind:
    """Kind of a value. allowed: its description for messages."""

    allowed: str
    accepts: Callable[[Any], bool]


@dataclass(frozen=True)
class Entry:
    """One entry. required: whether a run cannot resume without it."""

    kind: Kind
    required: bool = False


def whole(minimum: int, maximum: int) -> Kind:
    """Return the kind of whole numbers in a range."""

    def accepts(value: Any) -> bool:
        is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        return is_whole and minimum <= int(value) <= maximum

    return Kind(f"a whole number from {minimum} to {maximum}", accepts)


def _real(minimum: float, maximum: float, *others: float) -> Kind:
    """Return the kind of numbers in a range, and of NaN and the others."""

    def accepts(value: Any) -> bool:
        is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
        return is_number and (minimum <= value <= maximum or value != value or value in others)  # noqa: PLR0124

    return Kind(f"a number from {minimum:g} to {maximum:g}, or NaN", accepts)


def _of_type(cls: type, allowed: str) -> Kind:
    return Kind(allowed, lambda value: isinstance(value, cls))


_LOSS = _real(0, _MAX_FLOAT32)
_FRACTION = _real(0, 1)
_BEST = _real(0, 1, -math.inf)  # version 0.1.0 stored minus infinity if the metric was undefined
_ANY_NUMBER = _real(-_MAX_FLOAT32, _MAX_FLOAT32)
_POSITION = whole(0, (1 << 63) - 1)  # over all epochs

ENTRIES = {
    "epoch": Entry(whole(0, MAX_COUNT), required=True),
    "iter": Entry(whole(0, MAX_COUNT), required=True),
    "nbatches": Entry(whole(1, MAX_COUNT), required=True),
    "nepochs": Entry(whole(1, MAX_COUNT)),
    "nbatches_test": Entry(whole(0, MAX_COUNT)),
    "train_loss": Entry(_LOSS),
    "total_loss": Entry(_LOSS),
    "test_acc": Entry(_FRACTION),
    "test_auc": Entry(_FRACTION),
    "state_dict": Entry(_of_type(dict, "a dict")),
    "opt_state_dict": Entry(_of_type(dict, "a dict")),
    CONTINUATION: Entry(_of_type(dict, "a dict")),
    FLAGS: Entry(_of_type(dict, "a dict")),
    # Of older versions of the original implementation; not used.
    **{name: Entry(_ANY_NUMBER) for name in ("train_acc", "total_acc", "test_loss")},
}
_CONTINUATION_ENTRIES = {
    "seed": Entry(whole(0, MAX_SEED), required=True),
    "step": Entry(_POSITION, required=True),
    "samples": Entry(_POSITION, required=True),
    "best_accuracy": Entry(_BEST, required=True),
    "best_auc": Entry(_BEST, required=True),
    "shuffled": Entry(_of_type(bool, "True or False")),  # not in version 0.1.0
    # Of version 0.1.0; not used.
    **{f"window_{name}": Entry(_ANY_NUMBER) for name in ("loss", "correct", "samples", "iterations")},
}


def check_entries(contents: Mapping[Any, Any], path: Path) -> None:
    """Check the entries of a checkpoint from which training resumes.

    RunError, naming the file `path` and the entry, if one is missing, unknown or not of its kind, or if the
    position contradicts itself. What is in the state_dicts and in `model_flags` is checked where it is used.
    """
    refused = f"{path}: cannot resume"
    _check(contents, ENTRIES, "", refused)
    if CONTINUATION in contents:
        _check(contents[CONTINUATION], _CONTINUATION_ENTRIES, f"{CONTINUATION}.", refused)
    epoch, iteration, batches = (int(contents[name]) for name in ("epoch", "iter", "nbatches"))
    if iteration > batches:
        raise RunError(f"{refused}: damaged: iter is {iteration}, but nbatches is {batches}")
    if epoch >= contents.get("nepochs", math.inf):
        raise RunError(f"{refused}: damaged: epoch is {epoch}, but nepochs is {contents['nepochs']}")


def _check(found: Mapping[Any, Any], entries: Mapping[str, Entry], where: str, refused: str) -> None:
    """Raise RunError, which begins with `refused`, if the entries below `where` are not those of the schema."""
    missing = [where + name for name, entry in entries.items() if entry.required and name not in found]
    if missing:
        raise RunError(
            f"{refused}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing {_EVALUATE}"
        )
    for name, value in found.items():
        entry = entries.get(name) if isinstance(name, str) else None
        if entry is None:
            raise RunError(
                f"{refused}: unknown entry {where}{shown_name(name)}, of another program or a later version "
                f"{_EVALUATE}"
            )
        if not entry.kind.accepts(value):
            raise RunError(f"{refused}: damaged: {where}{name} is {shown(value)}, must be {entry.kind.allowed}")
