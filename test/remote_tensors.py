"""Tensors on a second device that note what is copied from and to them, and refuse to compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from second_device import on_second_device
from torch.utils._pytree import tree_map


class RemoteTensor(torch.Tensor):
    """A tensor on the second device. local: its elements, in host memory.

    note: called with the number of bytes of each copy, in any thread. Views are RemoteTensors. Other operations
    than views and copies, such as `.cpu()`, fail, unlike those of DeviceTensor.
    """

    local: torch.Tensor
    note: Callable[[int], None]

    @staticmethod
    def __new__(cls, local: torch.Tensor, note: Callable[[int], None]) -> RemoteTensor:
        remote = on_second_device(cls, local)
        remote.local, remote.note = local, note
        return remote

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        remote = next(arg for arg in args if isinstance(arg, RemoteTensor))
        local = [arg.local if isinstance(arg, RemoteTensor) else arg for arg in args]
        if func is torch.ops.aten.copy_.default:
            remote.note(remote.local.nbytes)
            func(*local, **(kwargs or {}))
            return args[0]
        if not func.is_view:
            raise NotImplementedError(f"{func} of a remote tensor")
        result = func(*local, **(kwargs or {}))
        return tree_map(lambda one: cls(one, remote.note) if isinstance(one, torch.Tensor) else one, result)
