"""Numbers of things in messages."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return a number and a noun with a regular plural: "1 log", "5 logs"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
