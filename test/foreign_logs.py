"""Logs like those of other submitters: keys in another order than this project has, some after run_stop."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlperf.benchmarks import DLRM, EDITIONS

TENSORS = ("embeddings", *(f"bottom_mlp_dense{n}" for n in (1, 2, 3)), *(f"top_mlp_dense{n}" for n in range(1, 6)))
# The start of the runs, shortly before the results of the edition were submitted.
STARTED_MS = {
    "0.7.0": 1_592_650_000_000,  # 2020-06-20
    "1.0.0": 1_621_080_000_000,  # 2021-05-15
    "1.1.0": 1_634_300_000_000,  # 2021-10-15
    "2.0.0": 1_650_000_000_000,  # 2022-04-15
    "2.1.0": 1_665_400_000_000,  # 2022-10-10
    "3.0.0": 1_683_700_000_000,  # 2023-05-10
    "3.1.0": 1_696_500_000_000,  # 2023-10-05
    "4.0.0": 1_715_200_000_000,  # 2024-05-08
    "4.1.0": 1_728_500_000_000,  # 2024-10-09
    "5.0.0": 1_746_700_000_000,  # 2025-05-08
    "5.1.0": 1_760_000_000_000,  # 2025-10-09
    "6.0.0": 1_778_200_000_000,  # 2026-05-08
}
Entry = tuple[str, Any, dict[str, Any], int]  # key, value, metadata, ms since the start
Change = Callable[[int, list[Entry]], list[Entry]]


def foreign_entries(
    seed: int, *, edition: str, minutes: float = 2.0, last_epoch: float | None = None
) -> list[Entry]:
    """Return the events of a compliant run at the reference's batch size 55296, converged at `last_epoch`.

    Epochs of DLRM begin with 1, those of DLRM-DCNv2 with 0. `last_epoch` is by default 0.9 after that.
    """
    if EDITIONS[edition].benchmark is DLRM:
        return _dlrm_entries(seed, edition, minutes, 1.9 if last_epoch is None else last_epoch)
    return _dcnv2_entries(seed, minutes, 0.9 if last_epoch is None else last_epoch)


def _dlrm_entries(seed: int, edition: str, minutes: float, last_epoch: float) -> list[Entry]:
    entries: list[Entry] = [
        ("submission_benchmark", "dlrm", {}, 0),
        ("submission_org", "Else", {}, 0),
        ("submission_division", "closed", {}, 0),
        ("submission_status", "onprem", {}, 0),
        ("submission_platform", "1xBox", {}, 0),
        ("eval_samples", 89137319, {}, 0),
        ("global_batch_size", 55296, {}, 0),
        ("opt_base_learning_rate", 24.0, {}, 0),
        ("sgd_opt_base_learning_rate", 24.0, {}, 0),
        ("sgd_opt_learning_rate_decay_poly_power", 2.0, {}, 0),
        ("opt_learning_rate_warmup_steps", 2750, {}, 0),
        ("lr_decay_start_steps", 49315, {}, 0),
        ("sgd_opt_learning_rate_decay_steps", 27772, {}, 0),
        ("gradient_accumulation_steps", 1, {}, 0),
        ("seed", seed, {}, 0),
        ("init_start", None, {}, 0),
        ("cache_clear", True, {}, 10),
        ("init_stop", None, {}, 60_000),
        ("run_start", None, {}, 60_000),
        ("epoch_start", None, {"epoch_num": 1}, 60_010),
    ]
    stop = 60_000 + round(minutes * 60_000)
    entries += _evaluations(seed, 1, last_epoch, 0.8026, stop)
    entries += [
        ("epoch_stop", None, {"epoch_num": 2}, stop),
        ("run_stop", None, {"status": "success"}, stop),
        ("eval_stop", None, {"epoch_num": last_epoch}, stop),
        ("train_samples", 3775334400, {}, stop),
        ("tracked_stats", {"throughput": 37107136.15}, {"step": 0.9}, stop + 9000),
    ]
    if edition == "0.7.0":
        return [entry for entry in entries if entry[0] not in ("gradient_accumulation_steps", "seed")]
    if edition != "1.0.0":
        entries += [("weights_initialization", None, {"tensor": name}, stop) for name in TENSORS]
    return entries


def _dcnv2_entries(seed: int, minutes: float, last_epoch: float) -> list[Entry]:
    stop = 60_000 + round(minutes * 60_000)
    return [
        ("cache_clear", True, {}, 0),
        ("init_start", None, {}, 10),
        ("submission_benchmark", "dlrm_dcnv2", {}, 20),
        ("submission_org", "Else", {}, 20),
        ("submission_division", "closed", {}, 20),
        ("submission_status", "onprem", {}, 20),
        ("submission_platform", "1xBox", {}, 20),
        ("seed", seed, {}, 20),
        ("global_batch_size", 55296, {}, 20),
        ("opt_name", "adagrad", {}, 20),
        ("opt_base_learning_rate", 0.004, {}, 20),
        ("opt_adagrad_learning_rate_decay", 0, {}, 20),
        ("opt_weight_decay", 0, {}, 20),
        ("opt_adagrad_initial_accumulator_value", 0.0, {}, 20),
        ("opt_adagrad_epsilon", 1e-8, {}, 20),
        ("opt_learning_rate_warmup_steps", 0, {}, 20),
        ("opt_learning_rate_decay_start_step", 0, {}, 20),
        ("opt_learning_rate_decay_steps", 0, {}, 20),
        ("gradient_accumulation_steps", 1, {}, 20),
        ("train_samples", 4195197692, {"epoch_num": 0.0}, 59_000),
        ("eval_samples", 89137319, {"epoch_num": 0.0}, 59_000),
        ("init_stop", None, {}, 60_000),
        ("run_start", None, {}, 60_000),
        ("epoch_start", None, {"epoch_num": 0}, 60_010),
        *_evaluations(seed, 0, last_epoch, 0.8029, stop),
        ("epoch_stop", None, {"epoch_num": 0}, stop),
        ("run_stop", None, {"status": "success"}, stop),
        ("eval_stop", None, {"epoch_num": last_epoch}, stop),
        ("tracked_stats", {"throughput": 37107136.15}, {"step": 0.9}, stop + 9000),
    ]


def _evaluations(seed: int, first_epoch: int, last_epoch: float, auc: float, stop: int) -> list[Entry]:
    """Return 20 evaluations per epoch, up to the one that reaches `auc` at `stop`, without its eval_stop."""
    entries: list[Entry] = []
    count = round((last_epoch - first_epoch) * 20)
    for number in range(1, count + 1):
        epoch, value = {"epoch_num": first_epoch + number / 20 - 1e-4}, auc - 0.002 * (count - number)
        if 1 < number < count:
            value += seed * 1e-8  # as no two runs have the same AUCs
        time = 60_000 + (stop - 60_000) * number // count
        entries += [("eval_start", None, epoch, time - 500), ("eval_accuracy", value, epoch, time)]
        if number < count:
            entries.append(("eval_stop", None, epoch, time))
    return entries


def write_log(path: Path, entries: list[Entry], edition: str = "2.0.0") -> None:
    """Write events like a launcher, with other output in between and a rank number before each token.

    edition: the edition of the round in which the run is said to have been made.
    """
    lines = ["+ srun --ntasks=1 ./run_and_time.sh", "training \u2026"]
    for number, (key, value, metadata, time) in enumerate(entries):
        event = {
            **{"namespace": "", "time_ms": STARTED_MS[edition] + time, "event_type": "POINT_IN_TIME", "key": key},
            **{"value": value, "metadata": {"file": "/workspace/train.py", "lineno": len(key), **metadata}},
        }
        lines.append(f"{'0: ' if number % 2 else ''}:::MLLOG {json.dumps(event)}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def foreign_results(folder: Path, edition: str, change: Change) -> Path:
    """Write the logs of a result, applying `change(number, events)` to each; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(EDITIONS[edition].runs):
        entries = foreign_entries(100 + number, edition=edition, minutes=2 + number / 10)
        write_log(folder / f"result_{number}.txt", change(number, entries), edition)
    return folder


def unchanged(number: int, entries: list[Entry]) -> list[Entry]:
    return entries


def changed(key: str, value: object, only: tuple[int, ...]) -> Change:
    def change(number: int, entries: list[Entry]) -> list[Entry]:
        if number not in only:
            return entries
        return [(k, value if k == key else v, metadata, time) for k, v, metadata, time in entries]

    return change


def without(key: str, only: tuple[int, ...]) -> Change:
    return lambda number, entries: [entry for entry in entries if number not in only or entry[0] != key]


def with_metadata(key: str, metadata: dict[str, Any], only: tuple[int, ...]) -> Change:
    def change(number: int, entries: list[Entry]) -> list[Entry]:
        if number not in only:
            return entries
        return [(k, v, metadata if k == key else old, time) for k, v, old, time in entries]

    return change


aborted = with_metadata("run_stop", {"status": "aborted"}, (3,))


def hasty(number: int, entries: list[Entry]) -> list[Entry]:
    return foreign_entries(number, edition="2.0.0", minutes=2 + number / 10, last_epoch=1.6)


def in_order_of_time(number: int, entries: list[Entry]) -> list[Entry]:
    """A change to what this project logs."""
    return sorted(entries, key=lambda entry: entry[-1])


def both(first: Change, second: Change) -> Change:
    return lambda number, entries: second(number, first(number, entries))


def repeated(key: str, times: int) -> Change:
    """Return a change that logs each event of a key several times, as several nodes do."""
    return lambda number, entries: [entry for entry in entries for _ in range(times if entry[0] == key else 1)]


def moved_to_the_end(key: str) -> Change:
    def change(number: int, entries: list[Entry]) -> list[Entry]:
        return sorted(entries, key=lambda entry: entry[0] == key)

    return change


def as_package(results: Path) -> Path:
    """Return the package around results/box/<benchmark>, after adding a description with mostly empty fields."""
    package = results.parents[2]
    (package / "systems").mkdir(parents=True, exist_ok=True)
    description: dict[str, object] = dict.fromkeys(
        [
            *("host_processor_frequency", "host_processor_caches", "host_processor_interconnect", "cooling"),
            *("host_memory_capacity", "host_storage_type", "host_storage_capacity", "host_networking"),
            *("host_networking_topology", "host_memory_configuration", "accelerator_host_interconnect"),
            *("accelerator_frequency", "accelerator_on-chip_memories", "accelerator_memory_configuration"),
            *("accelerator_memory_capacity", "accelerator_interconnect", "accelerator_interconnect_topology"),
            *("hw_notes", "sw_notes", "operating_system", "host_processor_vcpu_count"),
        ],
        "",
    )
    description |= {"submitter": "Else", "division": "closed", "system_name": "box"}
    description |= {"status": "Available on-premise"}
    description |= {"number_of_nodes": "1", "host_processors_per_node": "2", "accelerators_per_node": "8"}
    description |= {"host_processor_model_name": "CPU", "host_processor_core_count": "64"}
    description |= {"accelerator_model_name": "GPU", "framework": "F", "other_software_stack": {"nccl": "2"}}
    (package / "systems" / "box.json").write_text(json.dumps(description, indent=1))
    return package
