"""Logs like those of other submitters for editions 0.7 to 2.1: keys in another order, some after run_stop."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

TENSORS = ("embeddings", *(f"bottom_mlp_dense{n}" for n in (1, 2, 3)), *(f"top_mlp_dense{n}" for n in range(1, 6)))
# The start of the runs, shortly before the results of the edition were submitted.
STARTED_MS = {
    "0.7.0": 1_592_650_000_000,  # 2020-06-20
    "1.0.0": 1_621_080_000_000,  # 2021-05-15
    "1.1.0": 1_634_300_000_000,  # 2021-10-15
    "2.0.0": 1_650_000_000_000,  # 2022-04-15
    "2.1.0": 1_665_400_000_000,  # 2022-10-10
}
Entry = tuple[str, Any, dict[str, Any], int]  # key, value, metadata, ms since the start
Change = Callable[[int, list[Entry]], list[Entry]]


def foreign_entries(seed: int, *, edition: str, minutes: float = 2.0, last_epoch: float = 1.9) -> list[Entry]:
    """Return the events of a compliant run at the reference's batch size 55296, converged at `last_epoch`."""
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
    evaluations = round((last_epoch - 1) * 20)
    stop = 60_000 + round(minutes * 60_000)
    for number in range(1, evaluations + 1):
        epoch, auc = {"epoch_num": 1 + number / 20 - 1e-4}, 0.8026 - 0.002 * (evaluations - number)
        if 1 < number < evaluations:
            auc += seed * 1e-8  # as no two runs have the same AUCs
        time = 60_000 + (stop - 60_000) * number // evaluations
        entries += [("eval_start", None, epoch, time - 500), ("eval_accuracy", auc, epoch, time)]
        if number < evaluations:
            entries.append(("eval_stop", None, epoch, time))
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
    """Write five logs, applying `change(number, events)` to each; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(5):
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
    """Return the package around results/<system>/dlrm, after adding a description with mostly empty fields."""
    package = results.parents[2]
    (package / "systems").mkdir()
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
    description |= {"submitter": "Else", "division": "closed", "status": "onprem", "system_name": "box"}
    description |= {"number_of_nodes": "1", "host_processors_per_node": "2", "accelerators_per_node": "8"}
    description |= {"host_processor_model_name": "CPU", "host_processor_core_count": "64"}
    description |= {"accelerator_model_name": "GPU", "framework": "F", "other_software_stack": {"nccl": "2"}}
    (package / "systems" / "box.json").write_text(json.dumps(description, indent=1))
    return package
