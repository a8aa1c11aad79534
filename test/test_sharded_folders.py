"""Folders of sharded checkpoints in one process: damage, interruption, replacement, conversion."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from checkpoint_files import flipped
from dlrm_models import make_model
from program import ROOT, run_program
from sharded_folders import change_index, read_weights, save_file, save_folder

from mlperf.optim.optimizer import make_optimizer
from mlperf.training.checkpoint import load_training, load_weights
from mlperf.training.checkpoint_file import open_checkpoint
from mlperf.training.checkpoint_place import reserved
from mlperf.training.convert_checkpoint import convert
from mlperf.training.sharded_index import INDEX_NAME, read_index
from mlperf.training.sharded_writer import write_sharded
from mlperf.util.divided_tensor import DividedTensor, Part
from mlperf.util.errors import RunError, UsageError
from mlperf.util.folders import exchange_names, replace_folder, replaced_name, restore_folder
from mlperf.util.strict_json import SchemaError

OPTIMIZERS = ("sgd", "adagrad", "rwsadagrad")
TOOL = "tools/convert_checkpoint.py"


def refusal(folder: Path) -> str:
    """Return the error for a folder, which must be one line that begins with its path."""
    with pytest.raises(RunError) as caught:
        read_weights(folder)
    message = str(caught.value)
    assert message.startswith(str(folder))
    assert "\n" not in message
    return message


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_folder_is_loaded_like_the_file_from_which_it_was_converted(optimizer: str, tmp_path: Path) -> None:
    model, trained = save_folder(tmp_path / "sharded", optimizer)
    other = make_model()
    loaded = make_optimizer(optimizer, other)
    contents = load_weights(tmp_path / "sharded", other, optimizer=loaded)
    state = load_training(tmp_path / "sharded", contents, batches_per_epoch=5, accumulate=1, batch_size=6, seed=9)
    assert (state.iteration, state.step, state.samples, state.last_loss) == (3, 3, 18, 0.5)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in other.state_dict().items())
    ours, theirs = loaded.state_dict()["state"], trained.state_dict()["state"]
    assert ours.keys() == theirs.keys()
    for number, kept in ours.items():
        assert all(torch.equal(value, theirs[number][name]) for name, value in kept.items())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_file_survives_the_conversion_to_a_folder_and_back_to_the_bit(optimizer: str, tmp_path: Path) -> None:
    save_file(tmp_path / "model.pt", optimizer)
    convert(tmp_path / "model.pt", tmp_path / "sharded", shard_bytes=50)
    convert(tmp_path / "sharded", tmp_path / "again.pt")
    assert (tmp_path / "again.pt").read_bytes() == (tmp_path / "model.pt").read_bytes()


def test_torch_distributed_checkpoint_reads_the_folder(tmp_path: Path) -> None:
    save_folder(tmp_path / "sharded")
    weights = read_weights(tmp_path / "sharded")
    found = {name: torch.zeros_like(value) for name, value in weights.items()}
    with pytest.warns(UserWarning, match="torch.distributed is disabled"):
        dcp.load(found, checkpoint_id=tmp_path / "sharded")
    assert all(torch.equal(value, weights[name]) for name, value in found.items())


def divided(whole: torch.Tensor, rows: list[int], columns: list[int]) -> DividedTensor:
    """Return a tensor divided before the given rows and columns, with all its parts in this process."""
    parts = [
        Part(values, (row, column))
        for row, some in zip([0, *rows], whole.tensor_split(rows), strict=True)
        for column, values in zip([0, *columns], some.tensor_split(columns, 1), strict=True)
    ]
    return DividedTensor(whole.shape, whole.dtype, parts)


DIVISIONS: tuple[tuple[list[int], list[int]], ...] = (([], []), ([3], []), ([], [2, 4]), ([1, 8], [4]))


@pytest.mark.parametrize("saved", DIVISIONS, ids=str)
def test_divided_tensor_is_loaded_into_any_other_division(
    saved: tuple[list[int], list[int]], tmp_path: Path
) -> None:
    whole = torch.arange(60.0).view(10, 6)
    write_sharded(tmp_path / "sharded", {"state_dict": {"a": divided(whole, *saved)}}, shard_bytes=40)
    assert torch.equal(read_weights(tmp_path / "sharded")["a"], whole)
    for division in DIVISIONS:
        target = torch.zeros(10, 6)
        with open_checkpoint(tmp_path / "sharded") as file:
            file.fill([(divided(target, *division), file.contents["state_dict"]["a"])])
            file.verify()
        assert torch.equal(target, whole)


def test_flipped_bit_in_any_shard_is_noticed(tmp_path: Path) -> None:
    save_folder(tmp_path / "sharded")
    file = tmp_path / "sharded" / "__0_0.distcp"
    content = file.read_bytes()
    tensors = read_index(tmp_path / "sharded").tensors
    for name, tensor in tensors.items():
        for number, shard in enumerate(tensor.shards):
            bit = 8 * shard.position + (37 * number) % (8 * tensor.nbytes(shard))
            file.write_bytes(flipped(content, bit))
            assert refusal(tmp_path / "sharded").endswith(
                f"the contents of {name}{list(shard.offsets)} do not have their CRC-32"
            )


def test_flipped_bit_elsewhere_is_noticed_or_without_effect(tmp_path: Path) -> None:
    save_folder(tmp_path / "sharded")
    weights = read_weights(tmp_path / "sharded")
    file, index = tmp_path / "sharded" / "__0_0.distcp", tmp_path / "sharded" / INDEX_NAME
    content = file.read_bytes()
    for bit in range(3, 8 * len(content), 8 * len(content) // 60):
        file.write_bytes(flipped(content, bit))
        with contextlib.suppress(RunError):
            read = read_weights(tmp_path / "sharded")
            assert all(torch.equal(value, weights[name]) for name, value in read.items())
    file.write_bytes(content)
    content = index.read_bytes()
    for bit in range(3, 8 * len(content) - 8, 8 * len(content) // 60):
        index.write_bytes(flipped(content, bit))
        assert str(index) in refusal(tmp_path / "sharded")


def test_missing_and_truncated_files_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    save_folder(folder)
    file = folder / "__0_0.distcp"
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    assert f"{file}: damaged: has {len(content) - 1:,} bytes, must have {len(content):,}" == refusal(folder)
    file.unlink()
    assert refusal(folder) == f"{file}: the checkpoint cannot be read: No such file or directory"
    (folder / INDEX_NAME).unlink()
    assert "Is a directory without checkpoint.json" in refusal(folder)


def test_damage_of_what_other_programs_read_changes_nothing(tmp_path: Path) -> None:
    save_folder(tmp_path / "sharded")
    weights = read_weights(tmp_path / "sharded")
    (tmp_path / "sharded" / ".metadata").write_bytes(b"cos\nmkdir\n(S'witness'\ntR.")
    again = read_weights(tmp_path / "sharded")
    assert all(torch.equal(value, weights[name]) for name, value in again.items())
    assert not Path("witness").exists()


def _first_shards(body: Any) -> Any:
    return body["tensors"]["emb_l.0.weight"]["shards"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda body: body.update(format="other"), "not the index of a sharded checkpoint"),
        (lambda body: body.update(version=2), "version is 2, must be 1"),
        (lambda body: body.update(files=[]), "files is [], must be an object"),
        (lambda body: body.pop("tensors"), "lacks tensors"),
        (lambda body: body["files"].update({"../x": 1}), "must be the name of a file"),
        (lambda body: body["tensors"].update({"x": 1}), "tensors.x is 1, must be an object"),
        (lambda body: body["tensors"].pop("bot_l.0.weight"), "'bot_l.0.weight' is not among its tensors"),
        (
            lambda body: body["tensors"]["bot_l.0.weight"].update(dtype="object"),
            "dtype is 'object', must be one of",
        ),
        (
            lambda body: body["tensors"]["bot_l.0.weight"].update(dtype=["float32"]),
            "dtype is ['float32'], must",
        ),
        (lambda body: body["tensors"]["bot_l.0.weight"].update(shape=[4, -3]), "must be a whole number from 0"),
        (lambda body: _first_shards(body).pop(), "more or fewer elements"),
        (lambda body: _first_shards(body)[0].update(_first_shards(body)[1]), "shards that overlap"),
        (lambda body: _first_shards(body)[0].update(offsets=[22, 0]), "not inside its tensor"),
        (lambda body: _first_shards(body)[0].update(position=1 << 40), "a shard that is not in a file"),
        (lambda body: _first_shards(body)[0].update(file="other"), "a shard that is not in a file"),
        (lambda body: _first_shards(body)[0].update(crc32=-1), "crc32 is -1, must be a whole number"),
        (lambda body: body.update(contents={"state_dict": {"$float": "5"}}), "stands for nothing"),
        (lambda body: body.update(contents=[]), "has no state_dict"),
        (lambda body: body["contents"].update(iter=-1), "iter is -1, must be"),
        (lambda body: body["contents"].pop("epoch"), "epoch is missing"),
        (lambda body: body["contents"].update(other=1), "unknown entry other"),
    ],
)
def test_index_with_other_values_is_refused_before_anything_is_loaded(
    change: Callable[[Any], object], words: str, tmp_path: Path
) -> None:
    save_folder(tmp_path / "sharded")
    change_index(tmp_path / "sharded", change)
    model = make_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RunError) as caught:
        load_weights(tmp_path / "sharded", model, optimizer=make_optimizer("adagrad", model))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("is_intact", [True, False])
def test_many_shards_beside_each_other_are_compared_in_a_moment(is_intact: bool, tmp_path: Path) -> None:
    save_folder(tmp_path / "sharded")

    def cut(body: Any) -> None:
        one = _first_shards(body)[0] | {"sizes": [1, 1]}
        starts = [*range(9_999), 9_999 if is_intact else 5_000]
        tensor = body["tensors"]["emb_l.0.weight"]
        tensor.update(shape=[1, 10_000], shards=[one | {"offsets": [0, start]} for start in starts])

    change_index(tmp_path / "sharded", cut)
    before = time.process_time()
    if is_intact:
        assert len(read_index(tmp_path / "sharded").tensors["emb_l.0.weight"].shards) == 10_000
    else:
        with pytest.raises(SchemaError, match="has shards that overlap"):
            read_index(tmp_path / "sharded")
    assert time.process_time() - before < 5  # comparing each with each would take a minute


def test_index_without_its_digest_is_refused(tmp_path: Path) -> None:
    save_folder(tmp_path / "sharded")
    path = tmp_path / "sharded" / INDEX_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), "sha256": "0"}))
    assert "its values do not have their digest" in refusal(tmp_path / "sharded")


def killed_while_it_saves(folder: Path) -> None:
    """Save another checkpoint to `folder` in a process that is killed after some shards."""
    written: list[str] = []

    def note(name: str, size: int) -> None:
        written.append(name)
        if len(written) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        tensors = {f"emb_l.{number}.weight": torch.zeros(5, 4) for number in range(9)}
        write_sharded(folder, {"state_dict": tensors}, report=note)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


def test_killed_save_leaves_the_older_folder_and_its_rest_is_removed_by_the_next_run(tmp_path: Path) -> None:
    save_folder(tmp_path / "sharded")
    weights = read_weights(tmp_path / "sharded")
    killed_while_it_saves(tmp_path / "sharded")
    assert len(list(tmp_path.iterdir())) == 2
    assert all(torch.equal(value, weights[name]) for name, value in read_weights(tmp_path / "sharded").items())
    with reserved("--save-model", tmp_path / "sharded"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["sharded"]


def test_failed_save_leaves_the_older_folder_and_nothing_else(tmp_path: Path) -> None:
    save_folder(tmp_path / "sharded")
    weights = read_weights(tmp_path / "sharded")

    def fail(name: str, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(RunError, match=r"sharded: the checkpoint cannot be written: .*No space left on device"):
        write_sharded(tmp_path / "sharded", {"state_dict": {"a": torch.ones(3)}}, report=fail)
    assert [path.name for path in tmp_path.iterdir()] == ["sharded"]
    assert all(torch.equal(value, weights[name]) for name, value in read_weights(tmp_path / "sharded").items())


def not_supported(first: Path, second: Path) -> None:
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


@pytest.mark.parametrize("exchange", [exchange_names, not_supported])
def test_folder_is_replaced_as_a_whole(exchange: Callable[[Path, Path], None], tmp_path: Path) -> None:
    for name in ("older", "newer"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "content").write_text(name)
    (tmp_path / "older").chmod(0o750)
    replace_folder(tmp_path / "newer", tmp_path / "older", exchange)
    assert [path.name for path in tmp_path.iterdir()] == ["older"]
    assert (tmp_path / "older" / "content").read_text() == "newer"
    assert (tmp_path / "older").stat().st_mode & 0o777 == 0o750


def test_folder_is_brought_back_where_a_kill_between_two_renames_left_it(tmp_path: Path) -> None:
    folder = tmp_path / "sharded"
    save_folder(folder)
    folder.rename(replaced_name(folder))
    run = run_program(
        *("--data-generation=dataset", "--processed-data-file=x", "--arch-mlp-bot=13-2", f"--load-model={folder}"),
        cwd=tmp_path,
    )
    assert run.status == 1
    assert f"rename {replaced_name(folder)} to it" in run.stderr
    with reserved("--save-model", folder):
        assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == ["sharded"]
    read_weights(folder)
    shutil.copytree(folder, replaced_name(folder))  # killed before it was removed
    restore_folder(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["sharded"]


def test_folder_that_is_no_checkpoint_or_has_other_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with reserved("--save-model", tmp_path / "empty"):
        pass
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").touch()
    with (
        pytest.raises(UsageError, match="photos: exists and is not a checkpoint"),
        reserved("-x", tmp_path / "photos"),
    ):
        pass
    save_folder(tmp_path / "sharded")
    (tmp_path / "sharded" / "notes").touch()
    with (
        pytest.raises(UsageError, match="contains notes, which is not part"),
        reserved("-x", tmp_path / "sharded"),
    ):
        pass


def test_tool_converts_in_both_directions_and_replaces_only_checkpoints(tmp_path: Path) -> None:
    save_file(tmp_path / "model.pt")
    (tmp_path / "notes").write_text("notes")
    for _ in range(2):
        run = run_program("model.pt", "sharded", cwd=tmp_path, program=TOOL)
        assert (run.status, run.stdout) == (0, "sharded: converted from model.pt\n")
        assert "model.pt: " in run.stderr
    run = run_program("sharded", "model.pt", cwd=tmp_path, program=TOOL)
    assert run.status == 0, run.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt", "notes", "sharded"]
    for source, result, status, words in (
        ("none", "x", 1, "none: no such file or folder"),
        ("model.pt", "notes", 2, "result notes is a file; a checkpoint in a file is converted to a folder"),
        ("sharded", "notes", 2, "result notes: exists and is not a checkpoint; name another file"),
        ("sharded", "sharded", 2, "result sharded is the same file as source sharded; name another file"),
        ("notes", "x", 1, "notes: damaged, or not a PyTorch checkpoint"),
        ("sharded", "none/x.pt", 2, "result none/x.pt: folder none does not exist"),
    ):
        run = run_program(source, result, cwd=tmp_path, program=TOOL)
        assert run.status == status
        assert run.stderr.startswith(f"convert_checkpoint.py: error: {words}")
        assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_damage_is_noticed_while_a_checkpoint_is_converted(kind: str, tmp_path: Path) -> None:
    save_file(tmp_path / "model.pt")
    convert(tmp_path / "model.pt", tmp_path / "sharded")
    source = tmp_path / "sharded" if kind == "folder" else tmp_path / "model.pt"
    damaged = source / "__0_0.distcp" if kind == "folder" else source
    with open_checkpoint(source) as file:
        expected = file.contents["state_dict"].keys()
    assert expected
    content = bytearray(damaged.read_bytes())
    place = bytes(content).find(read_weights(source)["emb_l.0.weight"].numpy().tobytes()[:16])
    content[place] ^= 1
    damaged.write_bytes(content)
    result = tmp_path / "result"
    run = run_program(str(source), str(result), cwd=tmp_path, program=TOOL)
    assert run.status == 1
    assert "do not have their CRC-32" in run.stderr
    assert not result.exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


# Prints by how much the conversions raise the peak of the resident memory, in bytes.
_PEAK = """
import resource, sys
from pathlib import Path
import torch
from mlperf.training.checkpoint_file import open_checkpoint, write_checkpoint
from mlperf.training.convert_checkpoint import convert
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
def both(name):
    convert(Path(f"{name}.pt"), Path(name))
    convert(Path(name), Path(f"{name}_again.pt"))
    with open(f"{name}.pt", "rb") as one, open(f"{name}_again.pt", "rb") as other:
        while block := one.read(1 << 20):
            assert block == other.read(1 << 20)
if sys.argv[1] == "make":
    write_checkpoint(Path("small.pt"), {"state_dict": {"a": torch.ones(1000, 10)}})
    block = torch.arange(8_000_000, dtype=torch.float32).view(-1, 16)
    tables = {f"emb_l.{number}.weight": block[number::10] for number in range(40)}  # 3.2 MB each
    write_checkpoint(Path("large.pt"), {"state_dict": {"emb_l.40.weight": block, **tables}})
else:
    both("small")
    before = peak()
    both("large")
    print(peak() - before)
    with open_checkpoint(Path("large")) as file:
        found = file.contents["state_dict"]
        targets = {name: torch.ones(value.shape) for name, value in found.items()}
        before = peak()
        file.fill((targets[name], value) for name, value in found.items())
        file.verify()
    print(peak() - before)
"""


def test_conversion_needs_memory_for_the_largest_table_and_loading_for_no_second_copy(tmp_path: Path) -> None:
    for step in ("make", "convert"):
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, step],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "large.pt").stat().st_size > 32e6 + 40 * 3e6
    converted, loaded = map(int, done.stdout.split())
    blocks = 30e6  # of the threads
    assert converted < 32e6 + blocks  # the largest table
    assert loaded < blocks
