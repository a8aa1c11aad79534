"""Available memory of the machine and of the control group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mlperf.benchmarks import DLRM
from mlperf.cli.train import parse
from mlperf.runner.memory import RunSizes, available_on_gpu, require_run_memory, resource_failures
from mlperf.util import memory
from mlperf.util.errors import RunError
from mlperf.util.memory import MemoryNeed, MemorySaving, available_memory, require_memory, require_memory_for

GIB = 1 << 30
DATA_SET = ["--data-generation=dataset", "--processed-data-file=x", "--arch-mlp-bot=13-2"]


def machine(folder: Path, available: int) -> Path:
    """Write a file like /proc/meminfo and return it."""
    path = folder / "meminfo"
    path.write_text(
        f"MemTotal:  999999999 kB\nMemFree:  1 kB\nMemAvailable:  {available // 1024} kB\nHugePages: 0\n"
    )
    return path


def control_group(folder: Path, limit: str, used: str) -> list[tuple[Path, Path]]:
    """Write the files of a control group; return them after those of the other version, which do not exist."""
    (folder / "max").write_text(f"{limit}\n")
    (folder / "current").write_text(f"{used}\n")
    return [(folder / "no", folder / "such"), (folder / "max", folder / "current")]


@pytest.mark.parametrize(("in_machine", "in_group"), [(8, 3), (3, 8)])
def test_available_memory_is_the_minimum_of_machine_and_control_group(
    in_machine: int, in_group: int, tmp_path: Path
) -> None:
    group = control_group(tmp_path, str((in_group + 2) * GIB), str(2 * GIB))
    assert available_memory(machine(tmp_path, in_machine * GIB), group) == 3 * GIB


def test_control_group_without_a_limit_does_not_count(tmp_path: Path) -> None:
    assert available_memory(machine(tmp_path, 5 * GIB), control_group(tmp_path, "max", "1")) == 5 * GIB


@pytest.mark.parametrize(
    ("statistics", "cache"),
    [
        ("anon 9\nfile 9\ninactive_file 3\nactive_file 4\n", 7),
        ("inactive_file 1\nactive_file 1\ntotal_inactive_file 3\ntotal_active_file 4\n", 7),
        ("", 0),
        ("inactive_file many\n", 0),
        ("one two three\n", 0),
    ],
)
def test_files_in_the_memory_of_a_control_group_count_as_available(
    statistics: str, cache: int, tmp_path: Path
) -> None:
    """Reading data fills the memory of a control group with its pages, which are freed when they are needed."""
    group = control_group(tmp_path, "20", "18")
    (tmp_path / "memory.stat").write_text(statistics)
    assert available_memory(tmp_path / "none", group) == 2 + cache


def test_parts_of_a_run_that_need_most_memory_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = [
        MemoryNeed("the tables (--rows)", 7 * 10**9),
        MemoryNeed("the rest", 10**6),
        MemoryNeed("a batch (--size)", 9 * 10**9),
    ]
    require_memory_for(needs, available=17 * 10**9)
    words = (
        r"^needs 16\.0 GB of memory, 8\.0 GB are available: 9\.0 GB for a batch \(--size\), 7\.0 GB for the tab"
    )
    with pytest.raises(RunError, match=words) as caught:
        require_memory_for(needs, available=8 * 10**9)
    assert "the rest" not in str(caught.value)
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    require_memory_for(needs)


@pytest.mark.parametrize(
    ("available", "named"),
    [
        (60, "; --half needs 48.0 GB less"),
        (30, "; --tenth needs 86.4 GB less"),
        (-30, "; --half needs 48.0 GB less and --tenth needs 86.4 GB less"),
        (-50, ""),
    ],
)
def test_savings_are_named_only_if_they_are_enough(available: int, named: str) -> None:
    needs = [MemoryNeed("the tables (--rows)", 96 * 10**9)]
    savings = [MemorySaving("--half", 48 * 10**9), MemorySaving("--tenth", 864 * 10**8)]
    with pytest.raises(RunError) as caught:
        require_memory_for(needs, available=available * 10**9, savings=savings)
    assert str(caught.value).endswith(f"96.0 GB for the tables (--rows){named}")


def test_memory_of_exact_adagrad_is_named_with_what_needs_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlperf.util.memory.available_memory", lambda: 120 * 10**9)
    rows = "-".join(map(str, DLRM.data.table_rows))
    flags = [
        "--arch-sparse-feature-size=128",
        "--arch-mlp-bot=13-512-256-128",
        "--arch-mlp-top=1024-1",
        "--optimizer=adagrad",
    ]
    settings = parse([*flags, f"--arch-embedding-size={rows}", "--arch-interaction-op=dcn"])
    with pytest.raises(RunError) as caught:
        require_run_memory(settings, settings.model.architecture, torch.device("cpu"), RunSizes(1, 0))
    message = str(caught.value)
    assert "96.1 GB for Adagrad's sums of squares, one for each value of the tables (--optimizer)" in message
    assert message.endswith("--optimizer=rwsadagrad, another optimizer than the benchmark's, needs 95.4 GB less")


@pytest.mark.parametrize(("flags", "size"), [([], "68.0 kB"), ([f"--multi-hot-sizes={'1-' * 25}60000"], "0.2 GB")])
def test_ids_that_are_read_ahead_count(flags: list[str], size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlperf.util.memory.available_memory", lambda: 1)
    settings = parse([*DATA_SET, *flags])
    architecture = replace(settings.model.architecture, ids_per_table=settings.data.multi_hot.sizes)
    with pytest.raises(RunError, match=f" {size} for batches read ahead"):
        require_run_memory(settings, architecture, torch.device("cpu"), RunSizes(1000, 0))


def test_control_group_alone_is_enough(tmp_path: Path) -> None:
    assert available_memory(tmp_path / "none", control_group(tmp_path, "7", "3")) == 4


def test_any_size_is_accepted_if_available_memory_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert available_memory(tmp_path / "none", []) is None
    monkeypatch.setattr(memory, "available_memory", lambda: None)
    require_memory(10**30, "the tables")


def test_more_memory_than_available_is_refused_with_both_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 2 * 10**9)
    require_memory(2 * 10**9, "the tables")
    with pytest.raises(RunError, match=r"^the tables: needs 3\.0 GB of memory, 2\.0 GB are available$"):
        require_memory(3 * 10**9, "the tables")


@pytest.mark.parametrize(
    "allocate", [lambda: np.empty(1 << 58), lambda: torch.empty(1 << 50), lambda: bytearray(1 << 58)]
)
def test_failed_allocation_is_one_line_that_names_flags(allocate: Callable[[], object]) -> None:
    words = "^not enough memory: .*; smaller --mini-batch-size, "
    with pytest.raises(RunError, match=words) as caught, resource_failures():
        allocate()
    assert len(str(caught.value).splitlines()) == 1


def test_memory_of_the_gpu_that_an_earlier_run_of_this_process_freed_is_available(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (20, 80))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 55)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 5)
    assert available_on_gpu(torch.device("cuda")) == 70


def test_thread_that_cannot_be_started_is_one_line() -> None:
    with pytest.raises(RunError, match="can't start new thread: smaller --num-workers"), resource_failures():
        raise RuntimeError("can't start new thread")  # as Python does at the limit of the system


@pytest.mark.parametrize(
    "reason",
    [
        "CUDA error: no kernel image is available for execution on the device",
        "CUDA error: uncorrectable ECC error encountered",
        "CUDA error: all CUDA-capable devices are busy or unavailable",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "Triton Error [CUDA]: device kernel image is invalid",
    ],
)
def test_failure_of_the_gpu_is_one_line(reason: str) -> None:
    with pytest.raises(RunError) as caught, resource_failures():
        raise RuntimeError(f"{reason}\nCUDA kernel errors might be asynchronously reported at some other API call")
    assert str(caught.value) == f"the GPU failed: {reason}"


def test_pinned_memory_that_cannot_be_allocated_is_one_line() -> None:
    with pytest.raises(RunError, match=r"^not enough memory: CUDA error: out of memory; "), resource_failures():
        raise RuntimeError("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`")


@pytest.mark.parametrize("reason", ["an illegal memory access was encountered", "device-side assert triggered"])
def test_bug_on_the_gpu_keeps_its_traceback(reason: str) -> None:
    with pytest.raises(RuntimeError, match=reason), resource_failures():
        raise RuntimeError(f"CUDA error: {reason}")


def test_other_failures_are_not_blamed_on_the_memory() -> None:
    with pytest.raises(RuntimeError, match="shape"), resource_failures():
        torch.zeros(2).view(3)


def test_quantized_tables_are_counted_beside_those_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = parse(
        [
            *("--data-generation=dataset", "--raw-data-file=day", "--inference-only", "--quantize-emb-with-bit=4"),
            *("--arch-mlp-bot=13-100", "--arch-sparse-feature-size=100", "--arch-embedding-size=1000000"),
        ]
    )
    monkeypatch.setattr(memory, "available_memory", lambda: 10**8)
    words = r"0\.4 GB for the embedding tables .*, 58\.0 MB for the quantized tables beside them \(--quantize-emb"
    with pytest.raises(RunError, match=words):
        require_run_memory(settings, settings.model.architecture, torch.device("cpu"), RunSizes(1, 1))
