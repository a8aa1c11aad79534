"""The weights of a checkpoint: names of wrapped models, and comparison with the names and shapes of a model."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch

from mlperf.models.dlrm import ROW_TYPES
from mlperf.util.errors import RunError
from mlperf.util.printable import shown, shown_name
from mlperf.util.tensors import difference, is_plain

_ROW_PRECISIONS = {dtype: name for name, dtype in ROW_TYPES.items()}

# Modules that PyTorch puts around a model or a part of it: data-parallel training, torch.compile, FSDP and
# activation checkpointing.
_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})


def unwrapped(found: Mapping[Any, Any], path: Path) -> dict[str, Any]:
    """Return `found` with the names of the model itself: `bot_l.0.weight` for `module.bot_l.0.weight`.

    The whole model or some of its modules may be wrapped, also more than once. RunError, naming the file `path`,
    if only a part of the names has the prefix of a wrapped model, or if two names are the same without wrappers.
    """
    plain: dict[str, Any] = {}
    original: dict[str, str] = {}  # names as they are in the file
    for name, value in found.items():
        if not isinstance(name, str):
            raise RunError(f"{path}: the name of a weight is {shown(name)}, must be text")
        first = next(iter(original.values()), name)
        if _prefix(name) != _prefix(first):
            raise RunError(
                f"{path}: the names of the weights are mixed: {shown_name(first)} and {shown_name(name)}; either "
                f"all or none must begin with {shown_name(max(_prefix(name), _prefix(first)))}"
            )
        short = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
        if short in plain:
            raise RunError(f"{path}: {shown_name(original[short])} and {shown_name(name)} name the same weight")
        plain[short], original[short] = value, name
    return plain


def _prefix(name: str) -> str:
    """Return the part of `name` that comes from wrappers of the whole model: "module." or ""."""
    return "".join(f"{part}." for part in takewhile(_WRAPPERS.__contains__, name.split(".")))


def state_dict_mismatch(found: Mapping[str, Any], expected: Mapping[str, torch.Tensor]) -> str | None:
    """Compare the tensors of a checkpoint with the names and shapes of the model's.

    Return the first difference and its likely cause, None if all names and shapes are equal.
    """
    for name, weight in expected.items():
        value = found.get(name)
        if is_plain(value) and value.shape != weight.shape:
            return _difference(name, tuple(value.shape), tuple(weight.shape))
    missing = [name for name in expected if name not in found]
    surplus = [name for name in found if name not in expected]
    for text, names in (("lacks {}", missing), ("contains {}, which this model does not have", surplus)):
        if names:
            listed = ", ".join(map(shown_name, names[:3])) + (
                f" and {len(names) - 3} more" if len(names) > 3 else ""
            )
            flags = "--arch-mlp-bot, --arch-mlp-top, --weighted-pooling, --qr-flag, --md-flag and their thresholds"
            if names[0].startswith("interaction."):
                flags = "--arch-interaction-op, --dcn-num-layers"
            return f"{text.format(listed)}: saved with other model flags ({flags}) or other data"
    return None


def wrong_kind(found: Mapping[str, Any], expected: Mapping[str, torch.Tensor]) -> str | None:
    """Return the first value in `found` that is not a tensor of the dtype of the model's, None if there is none.

    Tables may have another of the precisions of --embedding-precision, see `saved_precision`. Nothing else is
    converted: 64-bit, integer or complex weights come from another program, or are damaged.
    """
    for name, weight in expected.items():
        value, allowed = found[name], weight
        if _is_table(name) and is_plain(value) and value.dtype in _ROW_PRECISIONS:
            allowed = torch.empty(weight.shape, dtype=value.dtype, device="meta")
        text = difference(value, allowed)
        if text is not None:
            return f"{name} {text}"
    return None


def saved_precision(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> str | None:
    """Return the --embedding-precision of the tables in `found` if it differs from that of the model, else None.

    found: has the names of `expected`, and tensors that `wrong_kind` accepts.
    """
    for name, weight in expected.items():
        if _is_table(name) and found[name].dtype != weight.dtype:
            return _ROW_PRECISIONS[found[name].dtype]
    return None


def _is_table(name: str) -> bool:
    """Return whether this is the name of an uncompressed embedding table."""
    return name.startswith("emb_l.") and name.count(".") == 2 and name.endswith(".weight")


def _difference(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """Return how the shapes of tensor `name` differ and which flags determine them."""
    if name.startswith("emb_l.") and len(found) == len(expected) == 2:
        table = name.split(".")[1]
        if name.endswith(("weight_q", "weight_r")) and found[0] != expected[0]:
            return (
                f"{name} has {found[0]} rows in the checkpoint and {expected[0]} in this model: --qr-collisions, "
                "or other data"
            )
        if found[0] != expected[0] and not name.endswith("proj.weight"):
            return (
                f"table {table} has {found[0]} rows in the checkpoint and {expected[0]} in the data: usually "
                "another --max-ind-range, --data-sub-sample-rate or --arch-embedding-size, or other data"
            )
        return (
            f"table {table} has dimension {found[1]} in the checkpoint and {expected[1]} in this model: "
            "--arch-sparse-feature-size, or --md-temperature and --md-round-dims, or --qr-operation"
        )
    flag = {
        "bot_l": "--arch-mlp-bot",
        "top_l": "--arch-mlp-top or --arch-interaction-op",
        "interaction": "--dcn-low-rank-dim, --arch-sparse-feature-size or another number of tables",
    }.get(name.split(".", maxsplit=1)[0], "--weighted-pooling or other data")
    return f"{name} is {list(found)} in the checkpoint and {list(expected)} in this model: {flag}"
