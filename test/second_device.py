"""A second device without a GPU: its tensors cannot be mixed with those in host memory, as on a GPU.

Its tensors say that they are on the device "lazy", whose gradients every build of PyTorch can compute.
Operations compute in host memory, so that their results can be compared with those of the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("lazy")
_COPIES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
# Operations whose result, or its size, the host must know.
_WAITS = ("_local_scalar_dense", "_unique2", "masked_select", "nonzero", "unique_dim")

Operation = Callable[..., Any]
AnyTensor = TypeVar("AnyTensor", bound=torch.Tensor)


class MixedDevicesError(RuntimeError):
    """An operation got tensors on both devices."""


def on_second_device(cls: type[AnyTensor], values: torch.Tensor) -> AnyTensor:
    """Return a tensor of class `cls` on the second device, with the shape and layout of `values`."""
    made: AnyTensor = torch.Tensor._make_wrapper_subclass(
        cls,
        values.shape,
        strides=values.stride(),
        storage_offset=values.storage_offset(),
        dtype=values.dtype,
        device=DEVICE,
    )
    return made


class DeviceTensor(torch.Tensor):
    """A tensor on the second device. on_host: its values, in host memory."""

    on_host: torch.Tensor

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> DeviceTensor:
        made = on_second_device(cls, values)
        made.on_host = values
        return made

    def __init__(self, values: torch.Tensor) -> None:
        pass

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"DeviceTensor({self.on_host})"

    def tolist(self) -> Any:
        """Return the values as numbers. PyTorch's method refuses tensors of other classes."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Operation, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _run(func, tuple(args), dict(kwargs or {}))


class SecondDevice(TorchDispatchMode):
    """Within this context, tensors can be created on DEVICE. waits: how often the host waited for its values."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def __torch_dispatch__(
        self, func: Operation, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        found = _run(func, tuple(args), given)
        if any(isinstance(leaf, DeviceTensor) for leaf in tree_leaves((args, given))):
            to_host = func is _COPIES[0] and not isinstance(found, DeviceTensor)
            self.waits += to_host or _is_waiting(func, args, given)
        return found


def _run(func: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation of PyTorch on the device of its tensors or, if it creates one, on the named device."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    on_device = any(isinstance(tensor, DeviceTensor) for tensor in tensors)
    # A tensor without dimensions in host memory can be combined with those on a GPU, but not changed.
    changed = _changed(func, args)
    on_host = any(
        not isinstance(tensor, DeviceTensor) and (tensor.dim() or tensor is changed) for tensor in tensors
    )
    if on_device and on_host and func not in _COPIES:
        raise MixedDevicesError(f"{func}: some tensors are on the second device, others in host memory")
    target = kwargs.get("device")
    inner = {**kwargs, **({} if target is None else {"device": torch.device("cpu")})}
    found = func(*_unwrapped(args), **_unwrapped(inner))
    if on_device if target is None else torch.device(target) == DEVICE:
        found = tree_map_only(torch.Tensor, DeviceTensor, found)
        if on_device:
            found = return_and_correct_aliasing(func, args, kwargs, found)
    return found


def _is_waiting(func: Operation, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    name = str(func).split(".")[1]
    by_mask = name in ("index", "index_put_") and any(
        isinstance(leaf, torch.Tensor) and leaf.dtype == torch.bool for leaf in tree_leaves(args[1])
    )
    return name in _WAITS or by_mask or (name == "repeat_interleave" and kwargs.get("output_size") is None)


def _changed(func: Any, args: tuple[Any, ...]) -> Any:
    """Return the argument that an operation changes in place, None if it changes none."""
    first = func._schema.arguments[:1]
    return args[0] if args and first and first[0].alias_info is not None and first[0].alias_info.is_write else None


def _unwrapped(nested: Any) -> Any:
    return tree_map_only(DeviceTensor, lambda tensor: tensor.on_host, nested)
