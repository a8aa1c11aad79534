"""The folder of a run of several processes, which the first writes, and from which all continue."""

from __future__ import annotations

from pathlib import Path

from equal_runs import run_on
from processes import in_processes, needs_torchrec
from program import Finished
from run_folders import names, records
from small_runs import SHAPE, TRAIN

from mlperf.training.sharded_index import read_index

pytestmark = [in_processes, needs_torchrec]

FEW = ("--print-freq=1", "--num-batches=4", "--test-freq=2", "--learning-rate=0.01", "--optimizer=adagrad")


def run(size: int, *flags: str) -> Finished:
    return run_on(size, [*flags, "--engine=torchrec"])


def test_run_of_several_processes_continues_from_its_newest_intact_checkpoint(
    terabyte: Path, tmp_path: Path
) -> None:
    flags = (*SHAPE, *TRAIN, *FEW, f"--processed-data-file={terabyte}")
    folder, other = tmp_path / "run", tmp_path / "other"
    whole = run(2, *flags, f"--output-dir={other}", "--nepochs=2")
    first = run(2, *flags, f"--output-dir={folder}", "--checkpoint-every=1e-9", "--nepochs=1")
    assert first.status == 0, first.stderr
    assert names(folder) == ["last", "metrics.jsonl", "mlperf.log", "model", "settings.toml"]
    kinds = [record["kind"] for record in records(folder) if record["event"] == "checkpoint"]
    assert kinds.count("last") == 4
    tensors = read_index(folder / "last").tensors
    shard = next(tensor.shards[-1] for name, tensor in tensors.items() if name.endswith("emb_l.2.weight"))
    shards = folder / "last" / shard.file
    content = bytearray(shards.read_bytes())
    content[shard.position] ^= 1
    shards.write_bytes(content)
    again = run(2, f"--output-dir={folder}", "--resume", "--nepochs=2")
    assert again.status == 0, again.stderr
    assert f"--resume: not from {shards}: damaged" in again.stderr
    assert f"{folder / 'model'}: resuming after iteration " in again.stderr
    assert again.progress_lines == whole.progress_lines[-len(again.progress_lines) :]


def test_plan_of_several_processes_is_printed_once(terabyte: Path, tmp_path: Path) -> None:
    flags = (*SHAPE, *TRAIN, f"--processed-data-file={terabyte}", f"--output-dir={tmp_path / 'run'}", "--dry-run")
    done = run(2, *flags)
    assert done.status == 0, done.stderr
    assert done.stdout.count("plan of the run") == 1
    assert "memory    at least " in done.stdout
    assert " in each of 2 processes, " in done.stdout
    assert list(tmp_path.iterdir()) == []
