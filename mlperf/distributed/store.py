"""The store of a run, which has small values by key for all its processes (torch.distributed.TCPStore).

It is in torchrun's agent of the first node or, without torchrun, in the process of rank 0.
"""

from __future__ import annotations

import time
from datetime import timedelta

import torch.distributed as dist

from mlperf.distributed.launchers import Launch
from mlperf.util.errors import RunError

_CONNECTING = 300.0  # seconds in which rank 0 must accept connections
_ATTEMPT = 5.0  # seconds of one attempt, during which no signal is handled


def keys_of(part: str, launch: Launch) -> dist.PrefixStore:
    """Return a new connection to the store, for the keys of one part of the program. Errors as of `connect`."""
    return dist.PrefixStore(f"dlrm/{launch.run}/{part}", connect(launch))


def connect(launch: Launch, *, is_server: bool = False) -> dist.TCPStore:
    """Return a new connection to the store. is_server: whether the store is in this process.

    A connection is for one thread: each waits for its own answer. RunError if that is not possible.
    """
    deadline = time.monotonic() + _CONNECTING
    while True:
        try:
            return dist.TCPStore(
                launch.host,
                launch.port,
                is_master=is_server,
                timeout=timedelta(seconds=_ATTEMPT),
                wait_for_workers=False,
            )
        except (RuntimeError, ValueError) as error:
            where = shown_address(launch)
            if is_server:
                raise RunError(f"{where}: rank 0 cannot accept connections there: {_reason(error)}") from None
            if time.monotonic() > deadline:
                raise RunError(f"{where}: no connection within {_CONNECTING:.0f} s") from None


def _reason(error: Exception) -> str:
    text = str(error)
    return "the port is in use" if "EADDRINUSE" in text else text.splitlines()[0]


def shown_address(launch: Launch) -> str:
    """Return the address of the store as its variables state it."""
    return f"MASTER_ADDR={launch.host}, MASTER_PORT={launch.port}"
