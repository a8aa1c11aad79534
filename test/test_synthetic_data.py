"""Stack distances: profiles, generated traces, and batches made from them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from program import ROOT, run_program
from scipy.stats import chisquare

from mlperf.data.synthetic.stack_distances import StackDistances, TraceGenerator
from mlperf.data.synthetic.synthetic_batches import SyntheticBatches
from mlperf.settings.data import DataSettings, GeneratedDataSettings
from mlperf.util.errors import RunError

TRACE = np.array([1, 2, 3, 4, 5, 3, 4, 1, 1, 6, 3])
DISTRIBUTION = StackDistances.of_trace(TRACE)


def plain_distances(trace: np.ndarray) -> list[int]:
    """Return the stack distances, found by searching a list."""
    stack: list[int] = []
    found = []
    for reference in trace.tolist():
        found.append(len(stack) - stack.index(reference) if reference in stack else 0)
        if reference in stack:
            stack.remove(reference)
        stack.append(reference)
    return found


def test_profile_of_the_published_trace() -> None:
    assert DISTRIBUTION.accesses.tolist() == [1, 2, 3, 4, 5, 6]
    assert DISTRIBUTION.distances.tolist() == [0, 1, 3, 4, 5]
    assert DISTRIBUTION.cumulative.tolist() == pytest.approx([6 / 11, 7 / 11, 9 / 11, 10 / 11, 1])


@pytest.mark.parametrize("seed", range(5))
def test_profile_equals_that_of_a_simple_list(seed: int) -> None:
    stream = np.random.default_rng(seed)
    trace = stream.zipf(1.5, 2000) % (10 ** (seed + 1))
    distances, counts = np.unique(plain_distances(trace), return_counts=True)
    found = StackDistances.of_trace(trace)
    assert found.distances.tolist() == distances.tolist()
    assert found.cumulative.tolist() == pytest.approx(counts.cumsum() / 2000)


@pytest.mark.parametrize("seed", range(3))
def test_generated_trace_has_the_requested_stack_distances(seed: int) -> None:
    stream = np.random.default_rng(seed)
    distances = np.concatenate(([0], np.sort(stream.choice(np.arange(1, 400), 60, replace=False))))
    shares = np.concatenate(([0.3], 0.7 * stream.dirichlet(np.ones(60))))
    given = StackDistances(stream.permutation(9_000), distances, shares.cumsum().clip(max=1.0))
    made = TraceGenerator(given, stream).draw(20_000)
    found = np.array(plain_distances(made))[2_000:]  # from here on every distance is possible
    assert set(found.tolist()) <= set(distances.tolist())
    counts = np.array([(found == distance).sum() for distance in distances])
    assert chisquare(counts, shares / shares.sum() * len(found)).pvalue > 1e-4
    assert chisquare(counts, np.roll(shares, 1) / shares.sum() * len(found)).pvalue < 1e-9  # the test can fail


def test_profile_of_a_generated_trace_is_close_to_the_distribution() -> None:
    stream = np.random.default_rng(1)
    given = StackDistances.of_trace(stream.zipf(1.2, 60_000) % 5_000)
    found = StackDistances.of_trace(TraceGenerator(given, stream).draw(60_000))
    at = np.arange(5_000)
    left, right = (np.interp(at, each.distances, each.cumulative) for each in (given, found))
    assert np.abs(left - right).max() < 0.1  # large distances are impossible until the stack is filled


def test_accesses_restart_when_all_are_used() -> None:
    only_new = StackDistances(np.array([7, 3, 9]), np.array([0]), np.array([1.0]))
    made = TraceGenerator(only_new, np.random.default_rng(0)).draw(8)
    assert made.tolist() == [7, 3, 9, 7, 3, 9, 7, 3]


def test_padding_draws_no_new_reference_after_all_are_used() -> None:
    given = StackDistances(np.arange(4), np.array([0, 1]), np.array([0.5, 1.0]))
    made = TraceGenerator(given, np.random.default_rng(0), padding=True).draw(1000)
    seen_all = int(np.flatnonzero(made == 3)[0])
    assert set(made[seen_all:].tolist()) == {3}
    without = TraceGenerator(given, np.random.default_rng(0)).draw(1000)
    assert set(without[-100:].tolist()) == {0, 1, 2, 3}


def test_padded_profile_has_more_new_references() -> None:
    padded = StackDistances.of_trace(TRACE, padding=True)
    assert padded.cumulative[0] == pytest.approx((6 + 3) / (11 + 3))  # ceil(11 references / distance 5) more


def test_trace_does_not_depend_on_the_number_of_draws() -> None:
    whole = TraceGenerator(DISTRIBUTION, np.random.default_rng(4)).draw(500)
    parts = TraceGenerator(DISTRIBUTION, np.random.default_rng(4))
    assert np.array_equal(whole, np.concatenate([parts.draw(count) for count in (1, 199, 300)]))


def test_text_that_is_not_a_trace_is_named(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("1, 2\n#3")
    run = run_program("profile", "t", "d", cwd=tmp_path, program="tools/stack_distances.py")
    assert run.status == 1
    assert run.stderr == "stack_distances.py: error: t: '#3' is not a whole number; expected numbers and commas\n"


@pytest.mark.parametrize("binary", [False, True])
def test_program_profiles_and_generates(binary: bool, tmp_path: Path) -> None:
    tool, switch = "tools/stack_distances.py", ["--binary"] if binary else []
    trace, distribution = tmp_path / "t", tmp_path / "d"
    if binary:
        TRACE.astype("<u8").tofile(trace)
    else:
        trace.write_text((ROOT / "input" / "trace.log").read_text())
    run = run_program("profile", str(trace), str(distribution), *switch, cwd=tmp_path, program=tool)
    assert run.status == 0, run.stderr
    assert distribution.read_text() == (ROOT / "input" / "dist_emb_0.log").read_text()
    made = tmp_path / "made"
    run = run_program("generate", str(distribution), str(made), "--length=77", *switch, cwd=tmp_path, program=tool)
    assert run.status == 0, run.stderr
    numbers = np.fromfile(made, "<u8").tolist() if binary else [int(w) for w in made.read_text().split(",")]
    assert len(numbers) == 77
    assert set(numbers) <= {1, 2, 3, 4, 5, 6}


@pytest.mark.parametrize(
    ("command", "source"), [("profile", "trace.log"), ("generate --length=77 --seed=1", "dist_emb_0.log")]
)
def test_input_may_be_a_pipe(command: str, source: str, tmp_path: Path) -> None:
    name, *flags = command.split()
    file = ROOT / "input" / source
    reading, writing = os.pipe()
    os.write(writing, file.read_bytes())
    os.close(writing)
    try:
        for path, result in ((file, "expected"), (f"/dev/fd/{reading}", "made")):
            run = run_program(name, str(path), result, *flags, cwd=tmp_path, program="tools/stack_distances.py")
            assert run.status == 0, run.stderr
    finally:
        os.close(reading)
    assert (tmp_path / "made").read_bytes() == (tmp_path / "expected").read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1, 2\n0\n", "2 lines"),
        ("1, x\n0\n1\n", "line 1"),
        ("1\n0, 2\n1\n", "line 3"),
        ("1\n1\n1\n", "from 0 on"),
        ("1\n0, 2\n0.5, 0.9\n", "line 3"),
        ("-1\n0\n1\n", "at least 0"),
        ("1\n0\nnan\n", "line 3"),
        ("1\n0, 1\n0.5, nan\n", "line 3"),
        ("1\n0, 1, 2\n0.5, nan, 1\n", "line 3"),
        ("1\n0, 1\n0.5, inf\n", "line 3"),
        ("1\n0, 1\n-inf, 1\n", "line 3"),
        ("1\n0, 1\n1.5, 1\n", "line 3"),
        ("1\n0, 0\n0.5, 1\n", "from 0 on"),
        ("1\n0, 9223372036854775808\n0.5, 1\n", "line 2"),
        ("1\n0.0\n1\n", "line 2"),
        ("\ufeff1\n0\n1\n", "line 1"),
        ("1\n\n\n", "2 lines|line 2"),
        ("1\n0\n1\n\n", "4 lines"),
    ],
)
def test_invalid_distribution_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "d.log").write_text(text)
    with pytest.raises(RunError, match=message) as caught:
        StackDistances.read(tmp_path / "d.log")
    assert str(caught.value).startswith(f"{tmp_path}/d.log: ")
    assert str(caught.value).isprintable()


def synthetic(
    *,
    rows_per_table: tuple[int, int] = (10, 4),
    samples: int = 23,
    batch_size: int = 5,
    lookups: int = 6,
    fixed: bool = False,
    seed: int = 3,
) -> SyntheticBatches:
    generated = GeneratedDataSettings(data_size=samples, lookups=lookups, fixed_lookups=fixed, round_targets=True)
    settings = DataSettings(batch_size=batch_size, seed=seed, generated=generated)
    distances = [DISTRIBUTION, DISTRIBUTION]
    return SyntheticBatches(settings, dense_features=3, rows_per_table=rows_per_table, distances=distances)


def flat(source: SyntheticBatches, first: int = 0) -> list[tuple[list[int], list[float]]]:
    return [(batch.indices.tolist(), batch.labels.flatten().tolist()) for batch in source.batches(0, first)]


def test_batches_depend_only_on_the_seed() -> None:
    assert flat(synthetic()) == flat(synthetic())
    assert flat(synthetic()) != flat(synthetic(seed=4))
    assert flat(synthetic(), first=3) == flat(synthetic())[3:]


def test_ids_of_a_sample_are_distinct_and_in_the_table() -> None:
    for batch in synthetic().batches(0):
        assert batch.offsets is not None
        pieces = np.split(batch.indices.numpy(), batch.offsets.flatten()[1:].numpy())
        for number, ids in enumerate(pieces):
            assert 1 <= len(ids) <= 6
            assert (np.diff(ids) > 0).all()
            assert ids.max() < (10, 4)[number // batch.size]


def test_one_fixed_lookup_per_sample_gives_the_trace() -> None:
    source = synthetic(lookups=1, fixed=True, samples=4000, batch_size=100, rows_per_table=(10, 10))
    trace = torch.cat([batch.indices[:100] for batch in source.batches(0)]).numpy()
    found = StackDistances.of_trace(trace)
    assert found.distances.tolist() == [0, 1, 2, 3, 4, 5, 6]  # 2 and 6 occur because accesses start again
    assert set(trace.tolist()) == {1, 2, 3, 4, 5, 6}


@pytest.fixture
def in_folder(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that writes a distribution under a name."""

    def write(name: str) -> Path:
        (tmp_path / name).write_text(DISTRIBUTION.text())
        return tmp_path / name

    return write


def test_program_trains_on_a_distribution_per_table(in_folder: Callable[[str], Path], tmp_path: Path) -> None:
    for name in ("emb_0.log", "emb_1.log"):
        in_folder(name)
    flags = ["--data-generation=synthetic", "--arch-embedding-size=7-7", "--num-batches=4", "--mini-batch-size=2"]
    run = run_program(*flags, f"--data-trace-file={tmp_path / 'emb_j.log'}", cwd=tmp_path)
    assert run.status == 0, run.stderr
    assert len(run.losses) == 4
    assert run.stderr.startswith("engine: ")
    assert run.stderr.count("\n") == 1
    missing = run_program(*flags, f"--data-trace-file={tmp_path / 'other_j.log'}", cwd=tmp_path)
    assert missing.status == 1
    assert "other_0.log" in missing.stderr


def test_default_distributions_come_with_the_repository() -> None:
    run = run_program("--data-generation=synthetic", cwd=ROOT)
    assert run.status == 0, run.stderr
    assert len(run.losses) == 1
    assert "are taken modulo" in run.stderr
