"""Where the time of a run goes (--time-breakdown), for every engine."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from equal_runs import DCN, MODEL
from processes import in_processes, launched, needs_torchrec
from program import Finished, golden_flags, run_program

TRAIN = ("--mini-batch-size=128", "--num-batches=6", "--test-mini-batch-size=64", "--test-freq=3")
FILE = "dlrm_s_pytorch_time.json"
FORWARD = {"reading", "bottom MLP", "top MLP"}
BACKWARD = {"gradient of the top MLP", "gradient of the bottom MLP"}


def parts_of(breakdown: dict[str, Any], phase: str) -> set[str]:
    (found,) = [each for each in breakdown["phases"] if each["name"] == phase]
    return {part["name"] for part in found["parts"]}


def require_sums(breakdown: dict[str, Any]) -> None:
    """Check that seconds and percents of the parts add up to those of their phase, and the phases to the whole."""
    phases = breakdown["phases"]
    assert sum(phase["seconds"] for phase in phases) == pytest.approx(breakdown["seconds"])
    assert sum(phase["percent"] for phase in phases) == pytest.approx(100)
    for phase in phases:
        for value in ("seconds", "percent", *(("ms",) if "count" in phase else ())):
            assert sum(part[value] for part in phase["parts"]) == pytest.approx(phase[value])
        if "count" in phase:
            assert phase["ms"] == pytest.approx(1e3 * phase["seconds"] / phase["count"])


def timed(flags: tuple[str, ...], folder: Path) -> tuple[Finished, dict[str, Any]]:
    run = run_program(*flags, "--time-breakdown", cwd=folder)
    assert run.status == 0, run.stderr
    breakdown: dict[str, Any] = json.loads((folder / FILE).read_text())
    require_sums(breakdown)
    return run, breakdown


@pytest.mark.parametrize(
    ("engine", "interaction", "training", "evaluation"),
    [
        (
            "cpu",
            (),
            {
                "embedding lookup and interaction",
                "loss and update of the last layer",
                "gradient and update of the top MLP",
                "gradient of the interaction",
                "update of the embedding tables",
                "gradient and update of the bottom MLP",
                "check of weights and rows",
            },
            {"embedding lookup and interaction", "prediction", "check of weights and rows"},
        ),
        (
            "cpu",
            DCN,
            {
                "embedding lookup",
                "cross network",
                "loss and update of the last layer",
                "gradient and update of the top MLP",
                "gradient and update of the cross network",
                "gradient of the interaction",
                "update of the embedding tables",
                "gradient and update of the bottom MLP",
                "check of weights and rows",
            },
            {"embedding lookup", "cross network", "prediction", "check of weights and rows"},
        ),
        (
            "autograd",
            (),
            {
                *("embedding lookup", "interaction", "loss", "gradient of the loss", *BACKWARD),
                *("gradient of the interaction", "update of the embedding tables", "update of the MLPs"),
            },
            {"embedding lookup", "interaction"},
        ),
        (
            "autograd",
            (*DCN, "--qr-flag", "--qr-threshold=10"),
            {
                *("embedding lookup", "cross network", "loss", "gradient of the loss", *BACKWARD),
                *("gradient of the cross network", "gradient of the embedding tables"),
                *("update of the embedding tables", "update of the MLPs and the cross network"),
            },
            {"embedding lookup", "cross network"},
        ),
    ],
)
def test_parts_of_an_engine_add_up_to_the_run(
    engine: str,
    interaction: tuple[str, ...],
    training: set[str],
    evaluation: set[str],
    terabyte: Path,
    tmp_path: Path,
) -> None:
    flags = (*MODEL, *TRAIN, *interaction, f"--engine={engine}", f"--processed-data-file={terabyte}")
    _, breakdown = timed(flags, tmp_path)
    assert breakdown["engine"].startswith(engine)
    assert parts_of(breakdown, "training") == {"other"} | FORWARD | training
    assert parts_of(breakdown, "evaluation") == {"metrics"} | FORWARD | evaluation
    for phase in breakdown["phases"][:2]:
        ahead = phase["read_ahead"]
        assert ahead["threads"] == 1
        assert 0 < ahead["seconds"] == pytest.approx(ahead["ms"] * phase["count"] / 1e3)
    counts = {phase["name"]: phase.get("count") for phase in breakdown["phases"]}
    test_rows = Path(f"{terabyte}_test.bin").stat().st_size // 160
    assert counts == {"training": 6, "evaluation": 2 * -(-test_rows // 64), "other": None}


@in_processes
@needs_torchrec
@pytest.mark.parametrize(
    ("size", "waiting"), [(1, set()), (2, {"waiting for the rows", "waiting for the gradients"})]
)
def test_parts_of_several_processes_add_up_to_the_run(size: int, waiting: set[str], terabyte: Path) -> None:
    flags = (*MODEL, *TRAIN, "--engine=torchrec", f"--processed-data-file={terabyte}")
    breakdown, *others = launched(size, timed_here, flags)
    assert others == [None] * (size - 1)
    assert (breakdown["processes"], breakdown["measured_processes"]) == (size, size)
    for part in breakdown["phases"][0]["parts"]:
        assert ("min_ms" in part) == (size > 1)
        assert size == 1 or 0 <= part["min_ms"] <= part["ms"] <= part["max_ms"]
    assert parts_of(breakdown, "training") == {
        *FORWARD,
        *BACKWARD,
        *waiting,
        *("exchange of the ids", "embedding lookup", "interaction", "loss", "gradient of the loss"),
        *("gradient of the interaction", "exchange of row gradients, update of the tables"),
        *("update of the MLPs", "other"),
    }


def timed_here(flags: tuple[str, ...]) -> dict[str, Any] | None:
    """Return the breakdown of this process, None if it has none."""
    with tempfile.TemporaryDirectory() as folder:
        run = run_program(*flags, "--time-breakdown", cwd=Path(folder))
        assert run.status == 0, run.stderr
        file = Path(folder, FILE)
        if not file.exists():
            return None
        breakdown: dict[str, Any] = json.loads(file.read_text())
    require_sums(breakdown)
    return breakdown


def test_run_prints_and_logs_the_same_and_its_table_at_the_end(terabyte: Path, tmp_path: Path) -> None:
    flags = (*golden_flags("sgd", terabyte), "--save-model=model.pt")
    plain = run_program(*flags, "--mlperf-log-file=plain.log", cwd=tmp_path)
    run, breakdown = timed((*flags, "--mlperf-log-file=timed.log", "--metrics-file=run.jsonl"), tmp_path)
    assert plain.status == 0, plain.stderr
    assert run.stdout.startswith(plain.stdout)
    logs = [(tmp_path / name).read_text().splitlines() for name in ("plain.log", "timed.log")]
    keys = [[json.loads(line.partition(" ")[2])["key"] for line in lines] for lines in logs]
    assert keys[0] == keys[1]

    heading, *table = run.stdout.removeprefix(plain.stdout).splitlines()
    assert heading.split() == ["Time,", "engine", "cpu", "seconds", "percent", "ms", "each"]
    *table, train_reading, test_reading = table
    assert train_reading.startswith("beside the training, 1 thread reading and decoding")
    assert test_reading.startswith("beside the evaluation, 1 thread reading and decoding")
    assert table[-1].split() == ["total", f"{breakdown['seconds']:.3f}", "100.00"]
    training = next(phase for phase in breakdown["phases"] if phase["name"] == "training")
    seconds, percent, each = table[0].removeprefix(f"training, {training['count']} steps").split()
    assert (seconds, percent) == (f"{training['seconds']:.3f}", f"{training['percent']:.2f}")
    assert each == f"{training['ms']:.3f}"
    assert [phase["name"] for phase in breakdown["phases"]] == ["training", "evaluation", "checkpoints", "other"]

    records = [json.loads(line) for line in (tmp_path / "run.jsonl").read_text().splitlines()]
    *_, event, stop = records
    assert stop["event"] == "run_stop"
    assert event["event"] == "time_breakdown"
    assert event["breakdown"] == breakdown
    assert (tmp_path / "dlrm_s_pytorch_time.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("quantized", [(), ("--quantize-emb-with-bit=8",)])
def test_evaluation_alone_is_measured(quantized: tuple[str, ...], terabyte: Path, tmp_path: Path) -> None:
    flags = (*golden_flags("sgd", terabyte), "--inference-only", "--save-predictions=p.csv", *quantized)
    plain = run_program(*flags, cwd=tmp_path)
    run, breakdown = timed(flags, tmp_path)
    assert run.stdout.startswith(plain.stdout)
    assert run.stdout.removeprefix(plain.stdout).startswith("Time, engine ")
    assert FORWARD | {"metrics", "writing of predictions"} < parts_of(breakdown, "evaluation")
    evaluation, other = breakdown["phases"]
    test_rows = Path(f"{terabyte}_test.bin").stat().st_size // 160
    assert evaluation["count"] == -(-test_rows // 64)
    assert other["seconds"] < evaluation["seconds"]
    assert (tmp_path / "dlrm_s_pytorch_time.png").is_file()


RANDOM = ("--data-size=6", "--mini-batch-size=2")


def test_run_that_diverges_says_where_its_time_went(tmp_path: Path) -> None:
    run = run_program(*RANDOM, "--learning-rate=1e30", "--nepochs=9", "--time-breakdown", cwd=tmp_path)
    assert run.status == 1
    assert "the training loss is nan" in run.stderr.splitlines()[-1]
    assert run.stdout.splitlines()[-1].startswith("total ")
    require_sums(json.loads((tmp_path / FILE).read_text()))


def test_earlier_breakdown_is_kept(tmp_path: Path) -> None:
    _, first = timed(RANDOM, tmp_path)
    run = run_program(*RANDOM, "--time-breakdown", cwd=tmp_path)
    assert "time breakdown in dlrm_s_pytorch_time_2.json\n" in run.stderr
    assert json.loads((tmp_path / FILE).read_text()) == first
    assert (tmp_path / "dlrm_s_pytorch_time_2.png").is_file()


def test_folder_of_a_run_has_its_breakdown(tmp_path: Path) -> None:
    run = run_program(*RANDOM, "--time-breakdown", "--output-dir=run", cwd=tmp_path)
    assert run.status == 0, run.stderr
    require_sums(json.loads((tmp_path / "run" / "time.json").read_text()))
    assert (tmp_path / "run" / "time.png").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_without_matplotlib_a_line_says_that_there_is_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlperf.runner.files.find_spec", lambda name: None)
    run = run_program(*RANDOM, "--time-breakdown", cwd=tmp_path)
    assert run.status == 0, run.stderr
    assert "no picture of the time breakdown: matplotlib is not installed (pip install matplotlib)" in run.stderr
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--enable-profiling",), "cannot be combined with --enable-profiling"),
        (
            ("--inference-only", "--score-text=x", "--load-model=x", "--processed-data-file=x"),
            "cannot be combined with --score-text=x",
        ),
    ],
)
def test_what_the_breakdown_does_not_measure_is_refused(
    flags: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    data = ("--data-generation=dataset", "--arch-mlp-bot=13-2") if "--inference-only" in flags else RANDOM
    run = run_program(*data, *flags, "--time-breakdown", cwd=tmp_path)
    assert run.status == 2
    assert f"error: --time-breakdown {reason}" in run.stderr
