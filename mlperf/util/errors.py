"""The ways this program fails on purpose; anything else that escapes is a bug."""


class UsageError(Exception):
    """A wrong call: one line that names the flag, its value and what is allowed. Exit status 2."""

    exit_status = 2


class RunError(Exception):
    """A run that failed: one line that names the file, row and column or the cause. Exit status 1."""

    exit_status = 1


class DivergedError(RunError):
    """A loss or a prediction that is not finite: the run came to its end, but did not converge."""
