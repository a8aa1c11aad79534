"""Installing this project, and running its programs with and without an installation."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from program import GOLDEN, ROOT, golden_flags, same_signal_handlers
from small_runs import SHAPE, TRAIN

import mlperf
from mlperf.cli.__main__ import PROGRAMS
from mlperf.util.program import run_program

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SCRIPTS: dict[str, str] = PROJECT["project"]["scripts"]


def main_of(script: str) -> Callable[[list[str]], int]:
    module, _, function = SCRIPTS[script].partition(":")
    main: Callable[[list[str]], int] = getattr(importlib.import_module(module), function)
    return main


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run Python without installed packages."""
    command = [sys.executable, "-S", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_each_installed_program_is_listed_with_its_script_in_a_checkout() -> None:
    assert [installed for installed, _, _ in PROGRAMS] == list(SCRIPTS)
    for _, in_checkout, _ in PROGRAMS:
        assert (ROOT / in_checkout).is_file()


def test_package_lists_its_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert importlib.import_module("mlperf.cli.__main__").main([]) == 0
    listed = capsys.readouterr().out
    for script in SCRIPTS:
        assert script in listed


@pytest.mark.parametrize("script", SCRIPTS)
def test_program_prints_its_version(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main_of(script)(["--version"])
    assert not stop.value.code
    assert capsys.readouterr().out.split()[-1] == mlperf.__version__


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_fits_a_terminal_and_names_the_program_as_typed(
    script: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [f"/somewhere/bin/{script}"])
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        main_of(script)(["--help"])
    assert not stop.value.code
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: {script} ")
    assert max(map(len, printed.splitlines())) <= 80


def test_error_starts_with_the_name_of_the_program_as_typed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for typed, name in (("/bin/dlrm-verify", "dlrm-verify"), ("tools/verify_data.py", "verify_data.py")):
        monkeypatch.setattr(sys, "argv", [typed])
        assert main_of("dlrm-verify")(["--no-such-flag"]) == 2
        assert capsys.readouterr().err.startswith(f"{name}: error: ")


@pytest.mark.parametrize("program", [in_checkout for _, in_checkout, _ in PROGRAMS])
def test_help_needs_no_third_party_package(program: str, tmp_path: Path) -> None:
    done = python(str(ROOT / program), "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {Path(program).name} ")


@pytest.mark.parametrize(
    "call",
    [
        ["dlrm_s_pytorch.py"],
        ["-m", "mlperf"],
        ["tools/make_sample.py", "--folder=/dev/null/x"],
        ["tools/prepare_criteo.py", "--raw-data-file=x", "--processed-data-file=y"],
        ["tools/stack_distances.py", "profile", "input/trace.log", "/dev/null/x"],
    ],
    ids=" ".join,
)
def test_missing_package_is_reported_in_one_line(call: list[str]) -> None:
    done = python(*call, cwd=ROOT)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert f" is not installed in this Python ({sys.executable})" in done.stderr
    assert "tools/setup.sh" in done.stderr


# Runs a program in a Python in which the packages named by the first argument cannot be imported.
WITHOUT = """
import runpy, sys
missing, program = sys.argv[1].split(","), sys.argv[2]
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Finder())
sys.argv = sys.argv[2:]
sys.path.insert(0, program.rpartition("/")[0])
runpy.run_path(program, run_name="__main__")
"""


def run_without(packages: str, program: str, *flags: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, packages, str(ROOT / program), *flags]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_training_without_a_log_needs_neither_the_packages_of_logs_samples_nor_progress_bars(
    terabyte: Path, tmp_path: Path
) -> None:
    flags = [flag for flag in (*SHAPE, *TRAIN) if flag not in ("--mlperf-logging", "--nepochs=2")]
    others = "mlperf_logging,sklearn,tqdm,matplotlib,onnx,tensorboard,pandas,scipy"
    done = run_without(
        others, "dlrm_s_pytorch.py", *flags, f"--processed-data-file={terabyte}", "--num-batches=6", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "Testing at - 6/6 of epoch 0," in done.stdout


def test_log_without_its_package_is_refused_before_anything_is_opened(terabyte: Path, tmp_path: Path) -> None:
    flags = golden_flags("sgd", terabyte)
    assert "--mlperf-logging" in flags
    done = run_without("mlperf_logging", "dlrm_s_pytorch.py", *flags, "--save-model=model.pt", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    error = "--mlperf-logging requires the package mlperf-logging (pip install mlperf-logging)"
    assert done.stderr == f"dlrm_s_pytorch.py: error: {error}\n"
    assert list(tmp_path.iterdir()) == []


def test_tools_for_data_and_plots_need_no_package_of_logs_samples_or_progress_bars(tmp_path: Path) -> None:
    raw = f"--raw-data-file={GOLDEN}/terabyte/day"
    (tmp_path / "run.txt").write_text(
        "Finished training it 2/4 of epoch 0, -1.00 ms/it, loss 0.5, accuracy 75.0%\n"
    )
    for program, *flags in (
        ("tools/prepare_criteo.py", raw, "--data-set=terabyte", "--processed-data-file=prepared"),
        ("tools/verify_data.py", "prepared"),
        ("tools/plot_run.py", "run.txt"),
        ("tools/report.py", "run.txt"),
    ):
        done = run_without("mlperf_logging,sklearn,tqdm", program, *flags, cwd=tmp_path)
        assert done.returncode == 0, done.stderr


def test_version_of_a_missing_package_is_reported_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def ask() -> None:
        raise importlib.metadata.PackageNotFoundError("mlperf-logging")

    with same_signal_handlers():
        assert run_program("dlrm-check", ask) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"dlrm-check: error: mlperf_logging is not installed in this Python ({sys.executable})")


def test_tool_outside_a_checkout_reports_the_missing_package(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    done = python("tools/verify_data.py", "--help", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("verify_data.py: error: mlperf is not installed in this Python")
    assert len(done.stderr.splitlines()) == 1


def test_tool_of_a_checkout_runs_its_own_package_even_if_another_is_installed(tmp_path: Path) -> None:
    (tmp_path / "mlperf").mkdir()
    (tmp_path / "mlperf" / "__init__.py").write_text("raise SystemExit('the installed package')\n")
    (tmp_path / "link.py").symlink_to(ROOT / "tools" / "verify_data.py")
    for program in (ROOT / "tools" / "verify_data.py", tmp_path / "link.py"):
        done = subprocess.run(
            [sys.executable, str(program), "--version"],
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"verify_data.py {mlperf.__version__}\n"


def test_submission_outside_a_checkout_is_reported_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlperf.cli.submit.ROOT", tmp_path)
    assert main_of("dlrm-submit")(["--submitter=Ours", "--system=box"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "requires a checkout" in line


@pytest.mark.slow
def test_wheel_contains_the_programs_and_all_files_that_they_read(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    pytest.importorskip("pip")
    shutil.copytree(ROOT / "mlperf", tmp_path / "mlperf", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "."]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {str(file.relative_to(tmp_path)) for file in (tmp_path / "mlperf").rglob("*") if file.is_file()}
    assert sources <= names
    entry_points = next(name for name in names if name.endswith("entry_points.txt"))
    assert zipfile.ZipFile(wheel).read(entry_points).decode().count("dlrm-") == len(SCRIPTS)
    assert f"-{mlperf.__version__}-" in wheel.name


@pytest.mark.parametrize(("flag", "status"), [("--help", 0), ("--version", 0), ("--lerning-rate=1", 2)])
def test_test_script_answers_before_installing(flag: str, status: int, tmp_path: Path) -> None:
    folder = tmp_path / "checkout"
    for name in ("mlperf", "test/dlrm_s_test.sh"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    done = subprocess.run(
        [str(folder / "test" / "dlrm_s_test.sh"), flag],
        env={**os.environ, "DLRM_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert flag in done.stdout + done.stderr or status == 0
    assert len(done.stderr.splitlines()) == (1 if status else 0)
