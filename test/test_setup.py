"""tools/setup.sh: what it installs, what an existing environment must have, and how its failures are reported."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from program import ROOT

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
    (folder / "requirements-distributed.txt").write_text("torchrec\n")
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


def test_packages_of_several_processes_are_installed_without_the_needs_they_state(checkout: Path) -> None:
    setup(checkout, "requirements-test.txt", "requirements-distributed.txt")
    together, alone, project = installs(checkout)
    assert together.endswith("--quiet --requirement=requirements.txt --requirement=requirements-test.txt")
    assert alone.endswith("--no-deps --requirement=requirements-distributed.txt")
    assert project.endswith("--editable .")


def test_builds_for_cpus_and_for_gpus_replace_each_other(checkout: Path) -> None:
    (checkout / "requirements-distributed-gpu.txt").write_text("torchrec\nfbgemm-gpu\n")
    for _ in range(2):
        for name in ("requirements-distributed.txt", "requirements-distributed-gpu.txt"):
            setup(checkout, name)
            assert any(line.endswith(f"--no-deps --requirement={name}") for line in installs(checkout))


def test_requirements_of_cpus_and_gpus_differ_only_in_the_build_of_fbgemm() -> None:
    cpu, gpu = (
        [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
        for name in ("requirements-distributed.txt", "requirements-distributed-gpu.txt")
    )
    assert [line.replace("fbgemm-gpu-cpu==", "fbgemm-gpu==") for line in cpu] == gpu


def test_each_of_several_files_counts_as_installed_on_its_own(checkout: Path) -> None:
    both = ("requirements-test.txt", "requirements-distributed.txt")
    setup(checkout, *both)
    installs(checkout)
    for files in ((), both[:1], both[1:], both[::-1]):
        setup(checkout, *files)
        assert installs(checkout) == []
    (checkout / both[1]).write_text("torchrec==2\n")
    setup(checkout, both[0])
    assert installs(checkout) == []
    setup(checkout, both[1])
    assert len(installs(checkout)) == 3


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
    assert failed.stderr.splitlines()[-1] == (
        "setup.sh: error: pip could not install requirements.txt; "
        "DLRM_PYTHON=/path/to/python uses an existing environment instead"
    )
    installs(checkout)
    assert setup(checkout).returncode == 0
    assert len(installs(checkout)) == 2


@pytest.mark.parametrize("status", ["0", "1"])
def test_installation_names_the_active_environment_that_could_be_used(status: str, checkout: Path) -> None:
    done = setup(checkout, VIRTUAL_ENV="/home/me/env", PIP_STATUS=status)
    told = "DLRM_PYTHON=/home/me/env/bin/python uses the active environment instead"
    assert done.stderr.splitlines()[0] == f"setup.sh: installing into .venv (first run); {told}"
    assert done.stderr.splitlines()[-1].endswith(told)
    assert done.stdout == (f"{checkout}/.venv/bin/python\n" if status == "0" else "")


def test_active_environment_of_this_project_is_not_named(checkout: Path) -> None:
    done = setup(checkout, VIRTUAL_ENV=f"{checkout}/.venv")
    assert "DLRM_PYTHON=/path/to/python uses an existing environment" in done.stderr


def test_python_without_venv_names_the_variable_for_an_existing_environment(checkout: Path) -> None:
    bin_folder = checkout.parent / "only"
    bin_folder.mkdir()
    for tool in ("bash", "dirname", "cat", "cksum", "tr", "flock", "rm", "touch", "env"):
        (bin_folder / tool).symlink_to(shutil.which(tool) or tool)
    done = setup(checkout, PATH=str(bin_folder))
    assert (done.returncode, done.stdout) == (1, "")
    assert "found no Python 3.11 to 3.14 with venv and ensurepip" in done.stderr
    assert done.stderr.endswith("DLRM_PYTHON=/path/to/python uses an existing environment instead\n")


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
    """Only those that the caller needs: a run without a log does not need the package of logs."""
    bare = checkout.parent / "bin" / "bare"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    done = setup(checkout, DLRM_PYTHON=str(bare))
    assert done.returncode == 1
    assert f"DLRM_PYTHON={bare}: lacks the package torch" in done.stderr

    partial = checkout.parent / "bin" / "partial"
    stubs = checkout.parent / "stubs"
    stubs.mkdir()
    for package in ("torch", "numpy", "numba", "sklearn"):
        (stubs / f"{package}.py").touch()
    partial.write_text(f'#!/bin/sh\nPYTHONPATH="{stubs}" exec "{sys.executable}" -S "$@"\n')
    partial.chmod(0o755)
    for needs in ([], ["--needs=sklearn"]):
        assert setup(checkout, *needs, DLRM_PYTHON=str(partial)).stdout == f"{partial}\n"
    for package, listed in (("mlperf_logging", "requirements.txt"), ("torchrec", "requirements-distributed.txt")):
        done = setup(checkout, f"--needs=sklearn,{package}", DLRM_PYTHON=str(partial))
        assert (done.returncode, done.stdout) == (1, "")
        assert f"DLRM_PYTHON={partial}: lacks the package {package}; {listed} lists all" in done.stderr
