"""A thread that sends records, so that the training does not wait for a server."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence

from mlperf.reporting.metrics_reader import Record
from mlperf.util.signals import deferred

_log = logging.getLogger(__name__)

_INTERVAL = 1.0  # seconds between two attempts, in which records are collected
_MAX_WAITING = 100_000  # records that are kept while a server does not answer; then the oldest are dropped


class Sender:
    """Calls `send` with all records that came since the last call, in order, at most once a second.

    If `send` fails, one line is logged, and the records are sent again with the next ones. name: in messages.
    """

    def __init__(self, name: str, send: Callable[[Sequence[Record]], None]) -> None:
        self._name = name
        self._send = send
        self._waiting: deque[Record] = deque(maxlen=_MAX_WAITING)
        self._dropped = 0
        self._failure: str | None = None
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="sender", daemon=True)
        with deferred():
            self._thread.start()

    def put(self, record: Record) -> None:
        """Send a record soon."""
        with deferred(), self._changed:
            self._dropped += len(self._waiting) == _MAX_WAITING
            self._waiting.append(record)
            self._changed.notify()

    def close(self, seconds: float) -> None:
        """Send the rest and end the thread, which takes up to `seconds`; log how much was not sent."""
        with deferred():
            self._closed.set()
            with self._changed:
                self._changed.notify()
            self._thread.join(seconds)
            unsent = len(self._waiting) + self._dropped
        if unsent:
            reason = self._failure or f"the server does not answer within {seconds:g} seconds"
            _log.warning("%s: %d records were not sent: %s", self._name, unsent, reason)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed.is_set():
                    self._changed.wait()
            self._closed.wait(_INTERVAL)
            is_last = self._closed.is_set()
            self._send_waiting()
            if is_last:
                return

    def _send_waiting(self) -> None:
        with self._changed:
            records = list(self._waiting)
        if not records:
            return
        try:
            self._send(records)
        except Exception as error:  # whatever the client of the server raises
            failure = first_line(error)
            if self._failure is None:
                _log.warning("%s: records cannot be sent, and are sent again later: %s", self._name, failure)
            self._failure = failure
            return
        self._failure = None
        with self._changed:
            for _ in records:
                self._waiting.popleft()


def first_line(error: Exception) -> str:
    """Return the first line of the message of an error, or the name of its type."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
