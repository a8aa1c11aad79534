"""A part of the attack, from a fixed seed: no case may fail. `attack.py` runs all of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hostile.kinds import KINDS, attack
from hostile.pool import Server, running_servers


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server for all kinds."""
    with running_servers(tmp_path_factory.mktemp("server"), 1) as servers:
        yield servers[0]


@pytest.mark.parametrize("kind", KINDS)
def test_attack_never_succeeds(kind: str, server: Server, tmp_path: Path) -> None:
    verdicts = attack(kind, tmp_path, [server], count=KINDS[kind].reduced, seed=1)
    assert len(verdicts) == KINDS[kind].reduced
    assert [f"{verdict.case.name}: {verdict.failure}" for verdict in verdicts if verdict.failure is not None] == []
