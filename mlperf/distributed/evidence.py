"""How a process finds out that another one, or the store of the run, is lost."""

from __future__ import annotations

import time

from mlperf.distributed.peers import Failure, Peers

_ENDED = "ended without a message"
_EXCHANGE = 5.0  # seconds for what a process has written last


def is_here(peers: Peers, rank: int) -> bool:
    """Return whether a process runs on this host."""
    return peers.view.states[rank].host == peers.own.host


def has_ended(peers: Peers, rank: int) -> bool:
    """Return whether a process is known to have ended: one of this host."""
    return is_here(peers, rank) and peers.view.states[rank].has_ended()


def lost_peer(peers: Peers, silent: float) -> Failure | None:
    """Return the failure of a process that has ended or not responded for `silent` seconds, None if there is none.

    A process that has said why it ends, or that a signal has ended, is not lost.
    """
    for rank in _lost_ranks(peers, silent):
        peers.exchange(_EXCHANGE)
        state, ended = peers.view.states[rank], has_ended(peers, rank)
        if not state.done and state.error is None and (state.signal is None or not ended):
            text = _ENDED if ended else f"no sign of life for {silent:.0f} s"
            return Failure(rank, "lost", text, peers.launch.rank)
    return None


def _lost_ranks(peers: Peers, silent: float) -> list[int]:
    """Return the processes, but this one, that seem to be lost. Their silence is that up to the last exchange."""
    view, now = peers.view, peers.read_at
    return [
        rank
        for rank, state in view.states.items()
        if rank != peers.launch.rank
        and not state.done
        and (has_ended(peers, rank) or now - view.changed[rank] > silent)
    ]


def lost_store(peers: Peers, silent: float, since: float) -> Failure | None:
    """Return the failure of a store that cannot be reached or has not responded for `silent` seconds, else None.

    since: when this process began to run, or continued after it was stopped (time.monotonic). The processes cannot
    agree who reports the failure: the first of each host does.
    """
    if not peers.lost and time.monotonic() - max(peers.read_at, since) < silent:
        return None
    states, launch = peers.view.states, peers.launch
    here = [rank for rank, state in states.items() if is_here(peers, rank) and not state.done]
    ended = [rank for rank in here if states[rank].has_ended()]
    can_report = [rank for rank in here if rank not in ended and (rank > 0 or launch.has_agent)]
    by = min(can_report, default=launch.rank)
    if ended:
        return Failure(ended[0], "lost", _ENDED, by)
    if launch.has_agent:
        return Failure(-1, "lost", f"lost the connection to torchrun's agent at {launch.host}:{launch.port}", by)
    return Failure(0, "lost", "ended, does not respond, or lost its connection", by)
