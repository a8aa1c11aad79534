"""Declaration of flags: once, as metadata of the settings field that the flag fills.

    @dataclass(frozen=True)
    class Settings:
        batch_size: int = flag("--mini-batch-size", at_least(1), 1, "samples per batch")

The parser, the help, the range check, the reference in `mlperf/docs/flags.md`, the keyword of `mlperf.run` and the
settings object are all derived from this line. A settings class may contain others: `part` declares a nested
settings class, `variants` optional ones of which a switch selects one.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from mlperf.settings.kinds import Kind, switch
from mlperf.util.errors import UsageError

T = TypeVar("T")

_KEY = "mlperf.settings"  # of the entry in a field's metadata


@dataclass(frozen=True)
class Flag:
    """One flag. name: as typed, "--mini-batch-size". group: heading in the help; if None, that of the class.

    alias: another name that may be typed.
    """

    name: str
    kind: Kind
    default: Any
    help: str
    group: str | None = None
    required: bool = False
    alias: str | None = None

    @property
    def names(self) -> list[str]:
        """The names that may be typed."""
        return [self.name] if self.alias is None else [self.name, self.alias]

    @property
    def key(self) -> str:
        """The name as a Python keyword: "mini_batch_size"."""
        return self.name.removeprefix("--").replace("-", "_")

    @property
    def shown_default(self) -> str | None:
        """The default as a user types it, None if the flag is off or empty by default."""
        if self.kind.is_switch or self.default is None or self.default == "":
            return None
        return self.kind.show(self.default)

    def arguments(self, value: Any) -> list[str]:
        """Return the command-line arguments that set the flag to `value`, which may be its text."""
        if self.kind.is_switch:
            return [self.name] if self._parsed(str(value)) else []
        if value is True and self.kind.const is not None:
            return [self.name]
        try:
            typed = value if isinstance(value, str) else self.kind.show(value)
        except TypeError:  # of another type: the parser reports what is allowed
            typed = str(value)
        return [f"{self.name}={typed}"]

    def _parsed(self, typed: str) -> Any:
        try:
            return self.kind(typed)
        except argparse.ArgumentTypeError as error:
            raise UsageError(f"{self.name}: {error}") from None


@dataclass(frozen=True)
class _Part:
    """A nested settings class. group: heading of its flags; if None, that of the enclosing class."""

    cls: type
    group: str | None


@dataclass(frozen=True)
class _Variants:
    """Nested settings classes of which at most one is selected, each by its own switch."""

    switches: tuple[tuple[Flag, type], ...]
    conflict: str
    group: str | None


def flag(
    name: str,
    kind: Kind,
    default: Any,
    help: str,
    *,
    group: str | None = None,
    required: bool = False,
    alias: str | None = None,
) -> Any:
    """Declare the flag that fills this field of a settings class."""
    return field(default=default, metadata={_KEY: Flag(name, kind, default, help, group, required, alias)})


def part(cls: type, *, group: str | None = None) -> Any:
    """Declare a field that holds the settings `cls`, filled by the flags of its own fields."""
    return field(default_factory=cls, metadata={_KEY: _Part(cls, group)})


def variants(switches: Mapping[str, tuple[type, str]], *, conflict: str, group: str | None = None) -> Any:
    """Declare a field with the settings of the selected switch, or None.

    switches: for each name, the settings class, whose flags require that switch, and the help text.
    conflict: reason why two of the switches cannot be combined.
    """
    declared = tuple((Flag(name, switch, False, help, group), cls) for name, (cls, help) in switches.items())
    return field(default=None, metadata={_KEY: _Variants(declared, conflict, group)})


def declared_flags(cls: type, group: str = "options") -> Iterator[tuple[str, Flag]]:
    """Yield the flags of a settings class and of those it contains, in order, each with its group."""
    for declared in _declarations(cls).values():
        if isinstance(declared, Flag):
            yield declared.group or group, declared
        elif isinstance(declared, _Part):
            yield from declared_flags(declared.cls, declared.group or group)
        else:
            for chosen_by, variant in declared.switches:
                yield declared.group or group, chosen_by
                yield from declared_flags(variant, declared.group or group)


def build(cls: type[T], given: Mapping[str, Any]) -> T:
    """Return the settings for the given values, by flag key; the rest have their defaults.

    UsageError if two variants are selected, or a flag of an unselected variant is given.
    """
    values: dict[str, Any] = {}
    for name, declared in _declarations(cls).items():
        if isinstance(declared, Flag):
            if declared.key in given:
                values[name] = given[declared.key]
        elif isinstance(declared, _Part):
            values[name] = build(declared.cls, given)
        else:
            values[name] = _chosen(declared, given)
    return cls(**values)


def flag_values(settings: Any) -> Iterator[tuple[Flag, Any]]:
    """Yield the flags of `settings` with their values; those of unselected variants have none."""
    for name, declared in _declarations(type(settings)).items():
        value = getattr(settings, name)
        if isinstance(declared, Flag):
            yield declared, value
        elif isinstance(declared, _Part):
            yield from flag_values(value)
        else:
            for chosen_by, variant in declared.switches:
                yield chosen_by, isinstance(value, variant)
            if value is not None:
                yield from flag_values(value)


def changed_flags(settings: Any) -> Iterator[tuple[Flag, Any]]:
    """Yield the flags whose values are not their defaults, with the values."""
    return ((declared, value) for declared, value in flag_values(settings) if value != declared.default)


def _declarations(cls: type) -> dict[str, Flag | _Part | _Variants]:
    return {each.name: each.metadata[_KEY] for each in fields(cls) if _KEY in each.metadata}


def _chosen(declared: _Variants, given: Mapping[str, Any]) -> object | None:
    chosen: list[tuple[Flag, type]] = []
    for chosen_by, variant in declared.switches:
        if given.get(chosen_by.key, False):
            chosen.append((chosen_by, variant))
            continue
        for unused, _ in changed_flags(build(variant, given)):
            raise UsageError(f"{unused.name} requires {chosen_by.name}")
    if len(chosen) > 1:
        first, second = (chosen_by.name for chosen_by, _ in chosen[:2])
        raise UsageError(f"{second} cannot be combined with {first}: {declared.conflict}")
    return build(chosen[0][1], given) if chosen else None
