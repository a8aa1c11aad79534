"""The command line of the scripts in bench/: flags, help and errors as in the programs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mlperf.settings.argument_parser import Parser
from mlperf.util.errors import UsageError


def script_parser(file: str, description: str | None) -> Parser:
    """Return a parser for the script in `file`. A wrong flag raises UsageError, which `run_program` prints."""
    return Parser(Path(file).name, description)


def existing_folder(text: str) -> Path:
    """Return the folder that a flag names. ArgumentTypeError if there is none."""
    folder = Path(text)
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is not a folder")
    return folder


def named_values(flag: str, text: str, known: Sequence[str]) -> list[str]:
    """Return the names in `text`, separated by commas. UsageError, naming `flag`, if one is not in `known`."""
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(
            f"{flag}={text}: {unknown[0]!r} is unknown; must be one or several of {', '.join(known)}, "
            "separated by commas"
        )
    return names
