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
