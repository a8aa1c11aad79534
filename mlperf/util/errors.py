"""Expected failures. Each is reported as one line; any other exception is a bug in this project."""

from __future__ import annotations


class UsageError(Exception):
    """Invalid arguments. The message names the flag, its value and the allowed values. Exit status 2."""

    exit_status = 2


class RunError(Exception):
    """A run failed. The message states the cause, with file, row and column where applicable. Exit status 1."""

    exit_status = 1


class DivergedError(RunError):
    """A loss or a prediction is not finite."""


class EndedQuietlyError(Exception):
    """The program ends with `exit_status` and without a message: another process of the run says why."""

    def __init__(self, exit_status: int) -> None:
        super().__init__("another process of the run has failed")
        self.exit_status = exit_status


def set_origin(error: BaseException, origin: str) -> None:
    """State where an error occurred, such as "rank 2", for the message of the program."""
    error.__dict__["origin"] = origin


def origin_of(error: BaseException) -> str:
    """Return what `set_origin` has stated and a colon, "" without."""
    origin = error.__dict__.get("origin")
    return "" if origin is None else f"{origin}: "
