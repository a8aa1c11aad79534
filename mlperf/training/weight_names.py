"""Names of the weights of a model in files of other programs.

Layer N of an MLP is entry 2 N of `bot_l` or `top_l`, because activations are entries too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_LAYER = re.compile(r"(bot_l|top_l)\.(\d+)\.(weight|bias)")
_TABLE = re.compile(r"emb_l\.(\d+)\.weight")
_CROSS = re.compile(r"interaction\.([VW])\.(\d+)\.(weight|bias)")
# Modules of the reference implementation of DLRM-DCNv2 (mlcommons/training, recommendation_v2/torchrec_dlrm).
_REFERENCE_MODULES = ("sparse_arch.", "dense_arch.", "inter_arch.", "over_arch.")
_REFERENCE_PREFIX = "model."  # of the module that computes the loss


def array_name(name: str) -> str | None:
    """Return the name of a weight in files of --load-weights: "bottom.1.bias" for "bot_l.2.bias".

    None if these files have no such weight: pooling weights, and parts of compressed tables.
    """
    if match := _TABLE.fullmatch(name):
        return f"emb.{match[1]}.weight"
    if match := _LAYER.fullmatch(name):
        mlp = {"bot_l": "bottom", "top_l": "top"}[match[1]]
        return f"{mlp}.{int(match[2]) // 2}.{match[3]}"
    if match := _CROSS.fullmatch(name):
        return f"cross.{match[2]}.{'bias' if match[3] == 'bias' else match[1]}"
    return None


def is_of_reference(names: Iterable[str]) -> bool:
    """Return whether the names of weights are those of the reference implementation of DLRM-DCNv2."""
    return any(name.removeprefix(_REFERENCE_PREFIX).startswith(_REFERENCE_MODULES) for name in names)


def renamed(found: Mapping[str, Any], expected: Iterable[str]) -> dict[str, Any]:
    """Return weights of the reference implementation with the names of this program.

    expected: names of the weights of the model. A weight that has no counterpart among them keeps its name.
    """
    model = list(expected)
    last = max(
        (int(match[2]) for name in model if (match := _LAYER.fullmatch(name)) and match[1] == "top_l"), default=0
    )
    own = {_reference_name(array, last // 2): name for name in model if (array := array_name(name)) is not None}
    return {own.get(name.removeprefix(_REFERENCE_PREFIX), name): value for name, value in found.items()}


def _reference_name(array: str, last_layer: int) -> str:
    """Return the name that the reference implementation has for `array`, as `array_name` returns it.

    last_layer: number of the last layer of the top MLP.
    """
    part, number, kind = array.split(".")
    if part == "emb":
        return f"sparse_arch.embedding_bag_collection.embedding_bags.t_cat_{number}.{kind}"
    if part == "bottom":
        return f"dense_arch.model._mlp.{number}._linear.{kind}"
    if part == "cross":
        return f"inter_arch.crossnet.{kind if kind == 'bias' else f'{kind}_kernels'}.{number}"
    if int(number) == last_layer:
        return f"over_arch.model.1.{kind}"
    return f"over_arch.model.0._mlp.{number}._linear.{kind}"
