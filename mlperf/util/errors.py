"""Expected failures. Each is reported as one line; any other exception is a bug in this project."""


class UsageError(Exception):
    """A wrong call. The message names the flag, its value and what is allowed. Exit status 2."""

    exit_status = 2


class RunError(Exception):
    """A failed run. The message names the file, row and column, or another cause. Exit status 1."""

    exit_status = 1


class DivergedError(RunError):
    """A loss or a prediction is not finite: the run ended, but it did not converge."""
