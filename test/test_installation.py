"""Installing this project, and running its programs with and without an installation."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from program import ROOT

import mlperf
from mlperf.cli.__main__ import PROGRAMS

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


# Stands for Python, venv and pip: makes .venv/bin/python, logs what pip is to install, and fails if told to.
FAKE_PYTHON = """#!/bin/sh
case "$*" in
    *venv*--clear*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    *"pip install"*) echo "$*" >>pip.log && sleep "${PIP_SECONDS:-0}" && exit "${PIP_STATUS:-0}" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a folder with what tools/setup.sh needs, and a Python that installs nothing."""
    folder = tmp_path / "checkout"
    for name in ("tools/setup.sh", "tools/signals.sh", "pyproject.toml", "mlperf/version.py", "requirements.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "requirements-test.txt").write_text("pytest\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").write_text(FAKE_PYTHON)
    (tmp_path / "bin" / "python3").chmod(0o755)
    return folder


def setup(checkout: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(checkout / "tools" / "setup.sh"), *arguments],
        env={"PATH": f"{checkout.parent / 'bin'}:/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def installs(checkout: Path) -> list[str]:
    """Return what pip was asked to install since the last call."""
    log = checkout / "pip.log"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def test_setup_installs_the_requirements_and_the_project_only_once(checkout: Path) -> None:
    done = setup(checkout)
    assert done.stdout == f"{checkout}/.venv/bin/python\n"
    requirements, project = installs(checkout)
    assert requirements.endswith("--requirement=requirements.txt")
    assert "--no-deps" in project
    assert project.endswith("--editable .")
    assert setup(checkout).stdout == done.stdout
    assert installs(checkout) == []


def test_installing_the_test_requirements_also_satisfies_run_and_time(checkout: Path) -> None:
    setup(checkout, "requirements-test.txt")
    assert "--requirement=requirements.txt --requirement=requirements-test.txt" in installs(checkout)[0]
    setup(checkout)
    setup(checkout, "requirements-test.txt")
    assert installs(checkout) == []


def test_setup_installs_again_after_a_change_and_after_changing_back(checkout: Path) -> None:
    setup(checkout, "requirements-test.txt")
    requirements = (checkout / "requirements.txt").read_text()
    for text in (requirements + "more\n", requirements):
        installs(checkout)
        (checkout / "requirements.txt").write_text(text)
        setup(checkout)
        assert len(installs(checkout)) == 2


def test_setup_installs_again_after_the_folder_was_moved(checkout: Path) -> None:
    setup(checkout)
    installs(checkout)
    moved = checkout.rename(checkout.parent / "moved")
    setup(moved)
    assert len(installs(moved)) == 2


def test_setup_waits_for_a_concurrent_installation_and_then_installs_nothing(checkout: Path) -> None:
    first = subprocess.Popen(
        [str(checkout / "tools" / "setup.sh")],
        env={"PATH": f"{checkout.parent / 'bin'}:/usr/bin:/bin", "PIP_SECONDS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (checkout / "pip.log").exists():
        assert first.poll() is None
        time.sleep(0.01)
    second = setup(checkout)
    assert second.stderr == "setup.sh: waiting for another installation into .venv\n"
    assert second.stdout == f"{checkout}/.venv/bin/python\n"
    assert first.wait() == 0
    assert len(installs(checkout)) == 2


def test_failed_setup_is_reported_and_repeated(checkout: Path) -> None:
    failed = setup(checkout, PIP_STATUS="1")
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert failed.stderr.splitlines()[-1] == "setup.sh: error: pip could not install requirements.txt"
    installs(checkout)
    assert setup(checkout).returncode == 0
    assert len(installs(checkout)) == 2


@pytest.mark.parametrize(
    ("argument", "status", "text"),
    [("--help", 0, "Create the virtual environment"), ("--hlep", 2, "--hlep"), ("no.txt", 1, "no.txt: no such")],
)
def test_setup_rejects_wrong_arguments_before_installing(
    argument: str, status: int, text: str, checkout: Path
) -> None:
    done = setup(checkout, argument)
    assert done.returncode == status
    assert text in done.stdout + done.stderr
    assert installs(checkout) == []
    assert not (checkout / ".venv").exists()


def test_setup_names_the_package_missing_in_a_given_environment(checkout: Path) -> None:
    bare = checkout.parent / "bin" / "bare"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    done = setup(checkout, DLRM_PYTHON=str(bare))
    assert done.returncode == 1
    assert f"DLRM_PYTHON={bare}: lacks the package torch" in done.stderr


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
