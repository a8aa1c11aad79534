"""Tensors on a device that is not the CPU, for tests without one: they note what is copied from and to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_map


class RemoteTensor(torch.Tensor):
    """A tensor whose `device` is not the CPU. Its elements are those of `local`, which is.

    note: called with the number of bytes of each copy, in any thread. Views are RemoteTensors. Other operations
    than views and copies, such as `.cpu()`, fail.
    """

    local: torch.Tensor
    note: Callable[[int], None]

    @staticmethod
    def __new__(cls, local: torch.Tensor, note: Callable[[int], None]) -> RemoteTensor:
        remote: RemoteTensor = torch.Tensor._make_wrapper_subclass(
            cls,
            local.shape,
            strides=local.stride(),
            storage_offset=local.storage_offset(),
            dtype=local.dtype,
            device=torch.device("lazy"),  # PyTorch makes views of it, although no such device is installed
        )
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
