"""The memory that one of several processes needs and has."""

from __future__ import annotations

import pytest
import torch

from mlperf.cli.train import parse
from mlperf.distributed.processes import Processes, running_as
from mlperf.engines.torchrec.placement import TableMemory
from mlperf.runner.memory import RunSizes, memory_for_tables, require_run_memory
from mlperf.settings.settings import Settings
from mlperf.util.errors import RunError

GB = 10**9
CPU = torch.device("cpu")
ROWS = 25_000_000  # of 100 values of 4 bytes: 10 GB


def settings_of(*flags: str) -> Settings:
    size = ("--arch-sparse-feature-size=100", "--arch-mlp-bot=4-100", f"--arch-embedding-size={ROWS}-3")
    return parse([*size, "--num-indices-per-lookup=1", *flags])


def check(settings: Settings) -> None:
    require_run_memory(settings, settings.model.architecture, CPU, RunSizes(1000, 0))


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlperf.util.memory.available_memory", lambda: 12 * GB)


@pytest.mark.usefixtures("host")
def test_each_process_needs_its_share_of_the_tables_and_has_its_share_of_the_host() -> None:
    with running_as(Processes(0, 4, 0, 4)):  # 2.5 GB of 3 GB
        check(settings_of())
        with pytest.raises(RunError) as caught:
            check(settings_of("--optimizer=adagrad"))
    message = str(caught.value)
    assert message.startswith(
        "needs 5.0 GB of memory in each of 4 processes, 3.0 GB are available: 2.5 GB for the "
    )
    assert "2.5 GB for Adagrad's sums of squares" in message
    assert "--embedding-precision=bf16" not in message  # several processes do not support it
    assert message.endswith("--optimizer=rwsadagrad, another optimizer than the benchmark's, needs 2.5 GB less")


@pytest.mark.usefixtures("host")
def test_processes_on_other_nodes_have_memory_of_their_own() -> None:
    with running_as(Processes(0, 4, 0, 1)):  # 5 GB of 12 GB
        check(settings_of("--optimizer=adagrad"))


@pytest.mark.usefixtures("host")
def test_one_process_needs_all_and_has_all() -> None:
    check(settings_of())
    with pytest.raises(RunError, match=r"^needs 20\.0 GB of memory, 12\.0 GB are available"):
        check(settings_of("--optimizer=adagrad"))


@pytest.mark.usefixtures("host")
def test_tables_have_what_the_rest_of_the_run_leaves() -> None:
    small, large = settings_of("--mini-batch-size=1000"), settings_of("--mini-batch-size=1000000")
    sizes = RunSizes(1_000_000, 0)

    def memory(settings: Settings) -> TableMemory:
        return memory_for_tables(settings, settings.model.architecture, CPU, sizes)

    with running_as(Processes(0, 4, 0, 4)):
        assert 2.9 * GB < memory(small).host < 3 * GB
        four = memory(large).host
    with running_as(Processes(0, 2, 0, 4)):  # 250,000 more samples, each with 2 pooled vectors of 400 bytes
        assert memory(large).host < four - 250_000 * 800
    assert memory(small).device == 0


def test_memory_for_tables_is_large_if_the_system_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlperf.util.memory.available_memory", lambda: None)
    settings = settings_of()
    found = memory_for_tables(settings, settings.model.architecture, CPU, RunSizes(1000, 0))
    assert found.host > 10**15
