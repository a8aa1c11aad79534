"""The scripts in bench/ in a copy of the repository: which flags reach the trainer, and which status comes back.

The interpreter is replaced by a script that records the calls of the trainer and of the sample's generator, and
passes everything else on to Python.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from program import ROOT, Finished

import mlperf
from mlperf.settings.from_flags import parse
from mlperf.settings.settings import Settings
from mlperf.settings.unused import unused_flags
from mlperf.submission.results import find_results
from mlperf.util.errors import RunError

CRITEO = ("dlrm_s_criteo_kaggle.sh", "dlrm_s_criteo_terabyte.sh")
SCRIPTS = (*CRITEO, "dlrm_s_benchmark.sh")
PREPARED = {CRITEO[0]: "kaggleAdDisplayChallenge_processed", CRITEO[1]: "terabyte_processed"}
RAW = {CRITEO[0]: "train.txt", CRITEO[1]: "day"}
FIRST_FILE = {CRITEO[0]: "train.txt", CRITEO[1]: "day_0"}

INTERPRETER = """#!/bin/bash
case "${1:-}" in
*/dlrm_s_pytorch.py)
    printf '%s\\0' "$@" >>"$CALLS/trainer"
    [[ ${STATUS:-0} -ne 0 && ${STATUS:-0} -ne 3 ]] || echo "${PRINTED:-}"
    exit "${STATUS:-0}"
    ;;
*/make_sample.py)
    folder=${2#--folder=}
    mkdir -p "$folder" && touch "$folder/sample.json" "$folder/day_0" "$CALLS/sample"
    ;;
*)
    [[ ${2:-} != *device_count* ]] || { echo "${GPUS:-0}" && exit; } # without importing torch
    exec @PYTHON@ "$@"
    ;;
esac
"""
TRAINED = "Finished training it 2/2 of epoch 0, 4.00 ms/it, loss 0.5"


@dataclass(frozen=True)
class Bench:
    """A copy of the repository without data, and a folder beside it in which the calls are recorded."""

    root: Path

    def run(self, script: str, *flags: str, **variables: str) -> Finished:
        """Run a script of bench/ in a folder that is not the repository."""
        calls, elsewhere = self.root.parent / "calls", self.root.parent / "elsewhere"
        for folder in (calls, elsewhere):
            folder.mkdir(exist_ok=True)
        environment = {
            "PATH": "/usr/bin:/bin",
            "CALLS": str(calls),
            "DLRM_PYTHON": str(self.root.parent / "python"),
        }
        done = subprocess.run(
            [str(self.root / "bench" / script), *flags],
            cwd=elsewhere,
            env={**environment, "LOGDIR": str(self.root.parent / "logs"), "PRINTED": TRAINED, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    @property
    def arguments(self) -> list[str]:
        """The flags of the last call of the trainer."""
        calls = (self.root.parent / "calls" / "trainer").read_text().split("\0")[:-1]
        start = max(number for number, text in enumerate(calls) if text.endswith("dlrm_s_pytorch.py"))
        return calls[start + 1 :]

    @property
    def settings(self) -> Settings:
        """What the trainer makes of them."""
        return parse(self.arguments)

    @property
    def generated_a_sample(self) -> bool:
        """Whether the sample was generated."""
        return (self.root.parent / "calls" / "sample").exists()

    def put(self, *names: str) -> Path:
        """Create empty files in input/, and return that folder."""
        folder = self.root / "input"
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / name).touch()
        return folder


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Return a copy of the scripts; the library is that of the repository."""
    root = tmp_path / "the clone"
    for part in ("bench", "tools"):
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__", "gpu", "results"))
    (root / "mlperf").symlink_to(ROOT / "mlperf")
    (tmp_path / "python").write_text(INTERPRETER.replace("@PYTHON@", sys.executable))
    (tmp_path / "python").chmod(0o755)
    return Bench(root)


@pytest.mark.parametrize(("script", "form"), [(CRITEO[0], "--raw-data-file={}"), (CRITEO[1], "two arguments")])
def test_raw_data_of_the_user_is_used_although_there_is_a_sample(form: str, script: str, bench: Bench) -> None:
    bench.put("sample.json", "day_0")
    mine = f"/data/my {RAW[script]}"
    flags = ["--raw-data-file", mine] if form == "two arguments" else [form.format(mine)]
    run = bench.run(script, *flags, "--data-sub-sample-rate=0.875")
    assert run.status == 0, run.stderr
    data = bench.settings.data
    assert data.raw_data_file == Path(mine)
    assert data.processed_data_file == Path(f"/data/{PREPARED[script]}_sub0.875")
    assert data.data_set == {CRITEO[0]: "kaggle", CRITEO[1]: "terabyte"}[script]
    assert not bench.generated_a_sample
    assert "sample" not in run.stderr


def test_sample_is_also_prepared_for_dlrm_dcnv2(bench: Bench) -> None:
    run = bench.run(CRITEO[1], "--data-set=terabyte_dcnv2")
    assert run.status == 0, run.stderr
    data = bench.settings.data
    assert data.data_set == "terabyte_dcnv2"
    assert data.processed_data_file == bench.root / "input" / "bench" / "terabyte_dcnv2"
    assert bench.generated_a_sample


@pytest.mark.parametrize("script", CRITEO)
def test_prepared_data_of_the_user_is_used_without_other_raw_data(
    script: str, bench: Bench, tmp_path: Path
) -> None:
    folder = bench.put(FIRST_FILE[script])
    for prepared in (tmp_path / "mine", tmp_path / "new"):
        (tmp_path / "mine_train.bin").touch()
        run = bench.run(script, f"--processed-data-file={prepared}")
        assert run.status == 0, run.stderr
        data = bench.settings.data
        assert data.processed_data_file == prepared
        assert data.raw_data_file == (None if prepared.name == "mine" else folder / RAW[script])
    assert not bench.generated_a_sample


@pytest.mark.parametrize("script", CRITEO)
def test_data_in_the_input_folder_is_found(script: str, bench: Bench) -> None:
    folder = bench.put(f"{FIRST_FILE[script]}.gz")
    assert bench.run(script, "--data-sub-sample-rate", "0.5").status == 0
    data = bench.settings.data
    assert (data.raw_data_file, data.processed_data_file) == (
        *(folder / RAW[script], folder / f"{PREPARED[script]}_sub0.5"),
    )


@pytest.mark.parametrize("script", CRITEO)
def test_sample_is_generated_only_without_other_data(script: str, bench: Bench) -> None:
    run = bench.run(script, "--max-ind-range=1000")
    assert (run.status, bench.generated_a_sample) == (0, True)
    assert "using the synthetic sample" in run.stderr
    data = bench.settings.data
    assert (data.data_set, data.raw_data_file) == ("terabyte", bench.root / "input" / "day")
    assert data.processed_data_file is not None
    assert data.processed_data_file.parent == bench.root / "input" / "bench"
    with_limit = data.processed_data_file
    assert bench.run(script).status == 0
    assert bench.settings.data.processed_data_file != with_limit


def test_empty_variables_of_the_caller_are_no_flags(bench: Bench) -> None:
    for flags in (("",), ("", " "), ("", "--test-freq=3", "")):
        run = bench.run(CRITEO[0], *flags)
        assert run.status == 0, run.stderr
        assert ("--test-freq=3" in bench.arguments) == ("--test-freq=3" in flags)


def test_log_folder_that_is_a_file_is_refused_before_any_work(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    run = bench.run(CRITEO[0], LOGDIR=str(tmp_path / "file"))
    assert (run.status, run.stdout) == (2, "")
    assert run.stderr == f"{CRITEO[0]}: error: LOGDIR={tmp_path}/file: is not a folder\n"
    assert not bench.generated_a_sample


@pytest.mark.parametrize("script", CRITEO)
def test_folder_without_data_is_refused_before_any_work(script: str, bench: Bench, tmp_path: Path) -> None:
    run = bench.run(script, DATADIR=str(tmp_path / "nothing"))
    assert run.status == 2
    assert f"DATADIR={tmp_path / 'nothing'}: contains neither {FIRST_FILE[script]}" in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert not bench.generated_a_sample
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("script", CRITEO)
def test_folder_as_raw_data_is_refused_before_any_work(script: str, bench: Bench, tmp_path: Path) -> None:
    run = bench.run(script, f"--raw-data-file={tmp_path}")
    assert (run.status, run.stdout) == (2, "")
    assert f"--raw-data-file={tmp_path} is a folder; must be" in run.stderr
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("script", CRITEO)
def test_batch_size_of_evaluations_is_passed_only_to_a_run_that_evaluates(script: str, bench: Bench) -> None:
    for flags, evaluates in (([], False), (["--test-freq=0"], False), (["--test-freq=9"], True)):
        assert bench.run(script, *flags).status == 0
        assert ("--test-mini-batch-size=16384" in bench.arguments) is evaluates
        assert not list(unused_flags(bench.settings)) or flags == ["--test-freq=0"]
    assert bench.run(script, "--inference-only", "--test-mini-batch-size=9").status == 0
    assert bench.settings.data.test_batch_size == 9


@pytest.mark.parametrize("script", SCRIPTS)
def test_console_output_is_not_taken_for_a_compliance_log(script: str, bench: Bench, tmp_path: Path) -> None:
    assert bench.run(script).status == 0
    assert len(list((tmp_path / "logs").iterdir())) == 1
    with pytest.raises(RunError, match="holds neither"):
        find_results(tmp_path / "logs")


def test_folder_with_a_sample_may_be_named(bench: Bench, tmp_path: Path) -> None:
    for name in ("sample.json", "day_0"):
        (tmp_path / name).touch()
    for script in CRITEO:
        assert bench.run(script, DATADIR=str(tmp_path)).status == 0
        assert bench.settings.data.raw_data_file == tmp_path / "day"
    assert not bench.generated_a_sample


def test_sample_is_not_used_as_another_data_set(bench: Bench) -> None:
    run = bench.run("dlrm_s_criteo_kaggle.sh", "--data-set=kaggle")
    assert (run.status, len(run.stderr.splitlines())) == (2, 1)
    assert "--data-set=kaggle" in run.stderr
    assert not bench.generated_a_sample


@pytest.mark.parametrize("script", CRITEO[:1])
def test_generated_data_needs_no_sample(script: str, bench: Bench) -> None:
    assert bench.run(script, "--data-generation=random", "--num-batches=2").status == 0
    assert bench.settings.data.generation == "random"
    assert not bench.generated_a_sample


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (
            ["--test-freq=10240 --memory-map --data-sub-sample-rate=0.875"],
            ["--test-freq=10240", "--memory-map", "--data-sub-sample-rate=0.875"],
        ),
        (["--num-batches 7 --nepochs 2"], ["--num-batches", "7", "--nepochs", "2"]),
        (["--load-model=my folder/m.pt"], ["--load-model=my folder/m.pt"]),
        (["--load-model", "my folder/ m.pt"], ["--load-model", "my folder/ m.pt"]),
        (["--load-model=my folder/m.pt --num-batches=2"], ["--load-model=my folder/m.pt", "--num-batches=2"]),
        (["--load-model='a --b/m.pt' --num-batches=2"], ["--load-model=a --b/m.pt", "--num-batches=2"]),
        (['--load-model "a  b/m.pt"', "--use-gpu"], ["--load-model", "a  b/m.pt", "--use-gpu"]),
        (["--load-model=Bob's *.pt"], ["--load-model=Bob's *.pt"]),
        ([" --use-gpu "], ["--use-gpu"]),
        (["--load-model", ""], ["--load-model", ""]),
        ([""], []),
        ([], []),
    ],
    ids=str,
)
def test_argument_with_several_options_is_split(arguments: list[str], options: list[str]) -> None:
    program = """source bench/options.sh; printf '%s\\0' ${options[@]+"${options[@]}"}"""
    done = subprocess.run(
        ["bash", "-euc", program, "script", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\0")[:-1] == (options or [""])
    assert done.stderr == ""


@pytest.mark.parametrize("script", SCRIPTS)
def test_options_in_quotes_reach_the_trainer(script: str, bench: Bench) -> None:
    bench.put("sample.json", "day_0")
    run = bench.run(script, "--num-batches=2 --load-model=my folder/m.pt --print-precision 3", "--nepochs=2")
    assert run.status == 0, run.stderr
    assert bench.arguments[-5:] == [
        *("--num-batches=2", "--load-model=my folder/m.pt", "--print-precision", "3", "--nepochs=2")
    ]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("status", [3, 130])
def test_status_of_the_trainer_is_that_of_the_script(status: int, script: str, bench: Bench) -> None:
    bench.put("sample.json", "day_0")
    run = bench.run(script, STATUS=str(status))
    assert run.status == status
    assert ("median 4.00 ms/it" in run.stdout) == (status == 3)


@pytest.mark.parametrize("script", CRITEO[:1])
def test_evaluation_alone_succeeds_without_times(script: str, bench: Bench) -> None:
    bench.put("sample.json", "day_0")
    run = bench.run(script, "--inference-only", PRINTED="Testing at - 0/0 of epoch 0,")
    assert run.status == 0
    assert run.stdout.splitlines()[-1].endswith(
        "has no time per iteration: nothing was trained, or no line was printed"
    )


@pytest.mark.parametrize(
    ("script", "flags"),
    [(SCRIPTS[0], "--no-such-flag"), (SCRIPTS[1], "--nepochs=5 --precision=fp8"), (SCRIPTS[2], "--nepochs 0")],
)
def test_wrong_flag_is_reported_in_one_line_before_any_work(
    script: str, flags: str, bench: Bench, tmp_path: Path
) -> None:
    run = bench.run(script, flags)
    assert (run.status, run.stdout) == (2, "")
    assert len(run.stderr.splitlines()) == 1
    assert any(flag in run.stderr for flag in ("--no-such-flag", "--precision", "--nepochs"))
    assert not bench.generated_a_sample
    assert not (tmp_path / "calls" / "trainer").exists()
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_and_version_need_no_environment(script: str, bench: Bench, tmp_path: Path) -> None:
    for flags in (["--help"], ["-h"], ["--num-batches=2 --help"]):
        run = bench.run(script, *flags, DLRM_PYTHON="/no/such/python")
        assert (run.status, run.stderr) == (0, "")
        assert script in run.stdout
    run = bench.run(script, "--version", DLRM_PYTHON="/no/such/python")
    assert run == Finished(0, f"{script} {mlperf.__version__}\n", "")
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("flags", [[], ["--use-gpu"]])
def test_gpus_that_the_user_selects_are_measured(flags: list[str], bench: Bench) -> None:
    run = bench.run("dlrm_s_benchmark.sh", *flags, CUDA_VISIBLE_DEVICES="3,5", GPUS="2")
    assert run.status == 0, run.stderr
    headings = [line for line in run.stdout.splitlines() if line.startswith("---")]
    assert headings == [*([] if flags else ["--- CPU ---"]), "--- GPU 3 ---", "--- GPU 5 ---"]
    assert bench.arguments[-1] == "--use-gpu"


def test_options_in_quotes_reach_the_timed_run(bench: Bench) -> None:
    script = bench.root / "run_and_time.sh"
    script.write_text("""#!/bin/sh\nprintf '[%s]' "$@"\nexit 7\n""")
    script.chmod(0o755)
    run = bench.run("run_and_time.sh", "--use-gpu --save-model=my folder/m.pt", "--nepochs=2")
    assert run == Finished(7, "[--use-gpu][--save-model=my folder/m.pt][--nepochs=2]", "")
