"""Expected failures. Each is reported as one line; any other exception is a bug in this project."""

from __future__ import annotations


def one_line(text: object) -> str:
    """Return a text with its control characters escaped, such as line ends in the names of files."""
    return "".join(
        character if character.isprintable() or "\udc80" <= character <= "\udcff" else _escaped(character)
        for character in str(text)
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


class UsageError(Exception):
    """Invalid arguments. The message names the flag, its value and the allowed values. Exit status 2."""

    exit_status = 2


class RunError(Exception):
    """A run failed. The message states the cause, with file, row and column where applicable. Exit status 1."""

    exit_status = 1


class DivergedError(RunError):
    """A loss or a prediction is not finite."""
