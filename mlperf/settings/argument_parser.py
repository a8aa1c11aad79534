"""Argument parser of all programs: flags from settings classes, errors in one line, help in 80 columns."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from mlperf.settings.flags import Flag, declared_flags
from mlperf.settings.kinds import Kind
from mlperf.util.errors import UsageError
from mlperf.version import __version__

_WIDTH = 80


class HelpFormatter(argparse.HelpFormatter):
    """Formats the help in 80 columns and appends the default, or "required", to the text of each flag.

    The description keeps its paragraphs. Indented paragraphs, which are examples, keep their lines.
    """

    def __init__(self, prog: str) -> None:
        width = min(shutil.get_terminal_size().columns, _WIDTH)
        super().__init__(prog, max_help_position=30, width=width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Return the description, paragraph by paragraph (overrides argparse's hook, as its own formatters do)."""
        fill = super()._fill_text
        paragraphs = text.strip().split("\n\n")
        return "\n\n".join(part if part.startswith(" ") else fill(part, width, indent) for part in paragraphs)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        """Return the help text of one flag (overrides argparse's hook, like argparse's own formatters)."""
        if action.help is None or "(default" in action.help or "(required" in action.help:
            return action.help
        if action.option_strings and action.required:
            return f"{action.help} (required)"
        unset = (None, argparse.SUPPRESS, False, "")
        if any(action.default is value for value in unset) or not action.option_strings or action.default == []:
            return action.help
        return f"{action.help} (default: %(default)s)"


class Parser(argparse.ArgumentParser):
    """Argument parser that raises UsageError with one line and allows no abbreviated flags.

    usage: replaces argparse's usage line, which lists all flags. `add_settings` adds the flags of a settings
    class; `mlperf.settings.flags.build` creates the settings from the parsed values.
    """

    def __init__(self, prog: str, description: str | None, *, usage: str | None = None) -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=description,
            allow_abbrev=False,
            formatter_class=HelpFormatter,
        )
        self.add_argument("--version", action="version", version=f"%(prog)s {__version__}")

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with argparse's message, which names the flag."""
        # Of a flag without value that is given one, such as --verify-data=false.
        message = message.replace("ignored explicit argument", "takes no value; remove")
        raise UsageError(message.removeprefix("argument "))

    def parse_known_args(  # type: ignore[override]  # of the overloads for other classes of namespaces
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse `args` as argparse does, but refuse the value "--", which argparse takes for a missing one."""
        given = sys.argv[1:] if args is None else args
        for argument in given:
            if argument.startswith("--") and argument.endswith("=--"):
                self.error(f"argument {argument.removesuffix('=--')}: '--' is not allowed as its value")
        return super().parse_known_args(given, namespace)

    def add_settings(self, cls: type) -> None:
        """Add the flags of a settings class, under the headings of their groups."""
        groups: dict[str, argparse._ActionsContainer] = {"options": self}
        for title, flag in declared_flags(cls):
            if title not in groups:
                groups[title] = self.add_argument_group(title)
            groups[title].add_argument(*flag.names, **_argparse_keywords(flag))

    def rows(self) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
        """Yield the heading of each group ("" without a group), with form, help and range of its arguments."""
        formatter = self._get_formatter()
        without_heading = (self._positionals, self._optionals)
        for groups in (without_heading, *((group,) for group in self._action_groups)):
            rows = [
                (_form(action), formatter._expand_help(action), _range(action))
                for group in groups
                for action in group._group_actions
                if not isinstance(action, argparse._HelpAction | argparse._VersionAction)
            ]
            if groups == without_heading:
                yield "", rows
            elif groups[0] not in without_heading:
                yield groups[0].title or "", rows


def _form(action: argparse.Action) -> str:
    """Return a flag or positional argument with its metavar."""
    name = ", ".join(action.option_strings)
    if action.nargs == 0:
        return name
    choices = None if action.choices is None else "{" + ",".join(map(str, action.choices)) + "}"
    value = choices or action.metavar or (action.dest if name == "" else action.dest.upper())
    shown = {"?": f"[{value}]", "+": f"{value} ...", "*": f"[{value} ...]"}.get(str(action.nargs), str(value))
    return f"{name} {shown}".strip()


def _range(action: argparse.Action) -> str:
    """Return the numbers that an argument may have, "" if it is not a number."""
    if not isinstance(action.type, Kind) or not action.type.extremes:
        return ""
    return re.sub("^(a whole number|a number in|a list of) ", "", action.type.allowed)


def _argparse_keywords(flag: Flag) -> dict[str, Any]:
    shown = flag.shown_default
    ending = " (required)" if flag.required else "" if shown is None else f" (default: {shown})"
    # The settings class provides the defaults, so only given flags are stored.
    keywords: dict[str, Any] = {
        "default": argparse.SUPPRESS,
        "help": (flag.help + ending).replace("%", "%%"),
        "required": flag.required,
    }
    if flag.kind.is_switch:
        return {**keywords, "action": "store_true"}
    keywords |= {"type": flag.kind, "metavar": flag.kind.metavar}
    if flag.kind.const is not None:
        keywords |= {"nargs": "?", "const": flag.kind.const}
    return keywords
