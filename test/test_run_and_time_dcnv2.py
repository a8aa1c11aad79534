"""run_and_time.sh with BENCHMARK=dlrm_dcnv2, and what it refuses of the other benchmark."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from program import GOLDEN, ROOT, read_events
from repository_copy import copy_repository
from timed_runs import result, run_and_time

from mlperf.benchmarks import BENCHMARKS, DLRM, DLRM_DCNV2, Benchmark, editions_of
from mlperf.data.criteo.sample.generate import SampleSettings, make_sample
from mlperf.data.prepare.pipeline import prepare
from mlperf.settings.dataset import PreparationSettings
from mlperf.submission.check import check_log

# Trains in no time.
TINY = (
    *("--arch-sparse-feature-size=4", "--arch-mlp-bot=13-4", "--arch-mlp-top=2-1", "--dcn-num-layers=1"),
    *("--dcn-low-rank-dim=2", "--mini-batch-size=64", "--print-freq=50"),
)
SYSTEMS = ROOT / "mlperf" / "systems"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the raw text of 2,000 rows."""
    folder = tmp_path_factory.mktemp("sample")
    make_sample(SampleSettings(folder, rows=2_000, seed=1))
    return folder


@pytest.fixture
def text(sample: Path, tmp_path: Path) -> Path:
    """Return a copy of the raw text."""
    return shutil.copytree(sample, tmp_path / "text")


def prepared(text: Path, benchmark: Benchmark) -> Path:
    """Prepare the text in its folder for a benchmark; return the prefix of the files."""
    limit = None if benchmark.data.traits.limits_rows else benchmark.data.index_limit
    prefix = text / f"of_{benchmark.name}"
    prepare(PreparationSettings(benchmark.data.name, text / "day", prefix, max_ind_range=limit or -1))
    return prefix


def test_raw_text_is_prepared_and_trained_on_and_the_log_follows_the_edition(text: Path, tmp_path: Path) -> None:
    variables = {"BENCHMARK": "dlrm_dcnv2", "DATADIR": "text", "LOGDIR": "logs", "SEED": "5", "EDITION": "4.0.0"}
    run = run_and_time(ROOT, *TINY, cwd=tmp_path, DROP_CACHES="false", **variables)
    assert run.status == 3, run.stdout + run.stderr
    assert (text / "terabyte_dcnv2_processed_train.bin").is_file()
    (log,) = (tmp_path / "logs").glob("*.log")
    assert re.fullmatch(r"dlrm_dcnv2_\d{8}_\d{6}_seed_5\.log", log.name)
    values = {event["key"]: event["value"] for event in read_events(log)}
    assert values["submission_benchmark"] == "dlrm_dcnv2"
    assert values["global_batch_size"] == 64
    assert (values["seed"], values["train_samples"]) == (5, 1_667)
    assert values["opt_adagrad_epsilon"] == 1e-8
    evaluations = [event["metadata"]["epoch_num"] for event in read_events(log, "eval_accuracy")]
    assert evaluations == pytest.approx([step / 27 for step in range(1, 28)], abs=1e-4)  # 1,667 // (64 * 20) = 1
    assert result(run)[:3] == ["RESULT", "RECOMMENDATION", "5"]


@pytest.mark.slow
def test_one_command_trains_dlrm_dcnv2_to_the_target_on_the_sample(tmp_path: Path) -> None:
    clone = copy_repository(tmp_path / "clone")
    run = run_and_time(clone, SEED="11", BENCHMARK="dlrm_dcnv2")
    assert run.status == 0, run.stdout + run.stderr
    assert "best reachable AUC is" in run.stdout
    (log,) = (clone / "results").glob("dlrm_dcnv2_*.log")
    assert all(check_log(log, edition).passed for edition in editions_of(DLRM_DCNV2))
    values = [event["value"] for event in read_events(log, "eval_accuracy")]
    assert max(values[:-1]) < DLRM_DCNV2.auc_target <= values[-1]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"BENCHMARK": "dlrm_v3"}, "BENCHMARK=dlrm_v3: must be dlrm or dlrm_dcnv2"),
        (
            {"EDITION": "2.1.0"},
            "EDITION=2.1.0: allowed for BENCHMARK=dlrm_dcnv2 are 3.0.0 3.1.0 4.0.0 4.1.0 5.0.0 5.1.0 6.0.0",
        ),
        (
            {"BENCHMARK": "dlrm", "EDITION": "6.0.0"},
            "EDITION=6.0.0: allowed for BENCHMARK=dlrm are 0.7.0 1.0.0 1.1.0 2.0.0 2.1.0",
        ),
        (
            {"CONFIG": "gpu_71680"},
            "CONFIG=gpu_71680: neither a file nor one of config_cpu.sh config_gpu_102400.sh",
        ),
        (
            {"CONFIG": "mlperf/systems/dlrm/config_gpu_71680.sh"},
            "config_gpu_71680.sh: is a configuration for BENCHMARK=dlrm, not for dlrm_dcnv2",
        ),
        (
            {"BENCHMARK": "dlrm", "CONFIG": "mlperf/systems/dlrm_dcnv2/config_cpu.sh"},
            "config_cpu.sh: is a configuration for BENCHMARK=dlrm_dcnv2, not for dlrm",
        ),
    ],
    ids=str,
)
def test_what_belongs_to_the_other_benchmark_is_refused_in_one_line(
    variables: dict[str, str], words: str, tmp_path: Path
) -> None:
    chosen = {"BENCHMARK": "dlrm_dcnv2", "LOGDIR": str(tmp_path / "logs"), **variables}
    run = run_and_time(ROOT, **chosen)  # type: ignore[arg-type]
    assert run.status == 2
    assert words in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_configuration_that_names_no_benchmark_is_one_of_dlrm(tmp_path: Path) -> None:
    lines = (SYSTEMS / "dlrm" / "config_cpu.sh").read_text()
    (tmp_path / "mine.sh").write_text(lines.replace("BENCHMARK=dlrm\n", ""))
    first, second = (
        run_and_time(ROOT, "--no-such-flag", cwd=tmp_path, CONFIG="mine.sh", BENCHMARK=name)
        for name in ("dlrm", "dlrm_dcnv2")
    )
    assert "unrecognized arguments: --no-such-flag" in first.stderr
    assert "mine.sh: is a configuration for BENCHMARK=dlrm, not for dlrm_dcnv2" in second.stderr


def test_several_prepared_data_sets_are_refused_by_the_names_of_their_files(tmp_path: Path) -> None:
    for name in ("a_train.bin", "day_0_labels.npy"):
        (tmp_path / name).touch()
    run = run_and_time(ROOT, BENCHMARK="dlrm_dcnv2", DATADIR=str(tmp_path))
    assert run.status == 2
    assert run.stderr == (
        f"run_and_time.sh: error: DATADIR={tmp_path}: has 2 prepared data sets for dlrm_dcnv2 "
        "(a_train.bin day_0_labels.npy); exactly one is allowed\n"
    )


def test_prepared_kaggle_data_is_refused_by_name(tmp_path: Path) -> None:
    prepare(PreparationSettings("kaggle", GOLDEN / "kaggle" / "train.txt", tmp_path / "x", bin_loader=True))
    for benchmark in (DLRM, DLRM_DCNV2):
        run = run_and_time(ROOT, BENCHMARK=benchmark.name, DATADIR=str(tmp_path), CONFIG="sample")
        assert (run.status, len(run.stderr.splitlines())) == (2, 1)
        assert f"x_train.bin was prepared with --data-set=kaggle, and {benchmark.name} needs" in run.stderr


@pytest.mark.parametrize("wanted", [DLRM, DLRM_DCNV2], ids=lambda benchmark: benchmark.name)
def test_data_prepared_for_the_other_benchmark_is_refused_by_name(
    wanted: Benchmark, text: Path, tmp_path: Path
) -> None:
    other = DLRM if wanted is DLRM_DCNV2 else DLRM_DCNV2
    prefix = prepared(text, other)
    for path in text.glob("day_*"):
        path.unlink()
    run = run_and_time(ROOT, BENCHMARK=wanted.name, DATADIR=str(text), CONFIG="sample")
    assert run.status == 2
    assert run.stderr == (
        f"run_and_time.sh: error: DATADIR={text}: {prefix}_train.bin was prepared with --data-set="
        f"{other.data.name}, and {wanted.name} needs --data-set={wanted.data.name}\n"
    )


def test_data_of_both_benchmarks_may_be_in_one_folder(text: Path, tmp_path: Path) -> None:
    for benchmark in (DLRM, DLRM_DCNV2):
        prepared(text, benchmark)
    for benchmark in (DLRM, DLRM_DCNV2):
        (tmp_path / "mine.sh").write_text(
            f'BENCHMARK={benchmark.name}\n[[ $prepared_data == "{text}/of_{benchmark.name}" ]]\n'
        )
        run = run_and_time(ROOT, BENCHMARK=benchmark.name, DATADIR=str(text), CONFIG=str(tmp_path / "mine.sh"))
        assert "does not set BATCH_SIZE" in run.stderr


def test_reference_files_are_trained_on_in_place(tmp_path: Path) -> None:
    golden, drawn = ROOT / "test" / "golden" / "dcnv2", tmp_path / "drawn.npz"
    rows = json.loads((golden / "golden.json").read_text())["model"]["table_rows"]
    before = sorted((golden / "onehot").iterdir())
    flags = [*TINY, f"--arch-embedding-size={'-'.join(map(str, rows))}", "--mini-batch-size=512"]
    flags += [f"--multi-hot-tables={drawn}"]  # named, so that they are in a file although there are few
    folder = str(golden / "onehot")
    run = run_and_time(
        ROOT, *flags, BENCHMARK="dlrm_dcnv2", DATADIR=folder, LOGDIR=str(tmp_path), DROP_CACHES="false"
    )
    assert run.status == 3, run.stdout + run.stderr
    assert "configuration mlperf/systems/dlrm_dcnv2/config_cpu.sh" in run.stdout
    assert "drawn.npz: drawing the ids of --multi-hot-sizes" in run.stderr, "the drawing is timed"
    (log,) = tmp_path.glob("*.log")
    assert [event["value"] for event in read_events(log, "train_samples", "eval_samples")] == [6_998, 152]
    assert sorted((golden / "onehot").iterdir()) == before


def test_reference_files_are_refused_by_dlrm(tmp_path: Path) -> None:
    (tmp_path / "day_0_labels.npy").touch()
    run = run_and_time(ROOT, DATADIR=str(tmp_path))
    assert run.status == 2
    assert "day_0_labels.npy is of dlrm_dcnv2, not of dlrm" in run.stderr


def test_each_benchmark_has_its_folder_of_configurations() -> None:
    assert {folder.name for folder in SYSTEMS.iterdir() if folder.is_dir()} == set(BENCHMARKS)
    for file in SYSTEMS.rglob("*.sh"):
        assert f"\nBENCHMARK={file.parent.name}\n" in file.read_text()
    for name in ("sample", "cpu", "gpu_32768"):  # defaults of run_and_time.sh
        assert all((SYSTEMS / benchmark / f"config_{name}.sh").is_file() for benchmark in BENCHMARKS)


@pytest.mark.parametrize(
    ("batch_size", "rate"),
    [(32768, 0.004), (55296, 0.004), (65536, 0.004), (102400, 0.004), (135168, 0.0034), (160000, 0.004)],
)
def test_configurations_match_the_reference_convergence_points(batch_size: int, rate: float) -> None:
    lines = (SYSTEMS / "dlrm_dcnv2" / f"config_gpu_{batch_size}.sh").read_text().splitlines()
    values = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    assert (int(values["BATCH_SIZE"]), float(values["LEARNING_RATE"])) == (batch_size, rate)
    # The rules of the closed division allow neither warm-up nor decay.
    assert [values[name] for name in ("WARMUP_STEPS", "DECAY_START_STEP", "DECAY_STEPS", "EPOCHS")] == [*"0001"]
