"""What several processes do not support, and wrong files of --sharding-constraints, are refused first."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest
from program import ROOT

from mlperf.cli.train import main, parse
from mlperf.distributed.processes import Processes
from mlperf.engines.torchrec.allowed import Allowed, allowed_for_tables, check_sharding
from mlperf.engines.torchrec.packages import FBGEMM, PYTORCH, TORCHREC, require_torchrec
from mlperf.util.errors import RunError, UsageError

TWO = Processes(0, 2, 0, 2)
TORCHREC_ENGINE = ("--engine=torchrec", "--arch-sparse-feature-size=4", "--arch-mlp-bot=4-4")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--mlperf-grad-accum-iter=2", "--mlperf-grad-accum-iter=2 is not supported by several processes"),
        ("--embedding-precision=bf16", "--embedding-precision=bf16 is not supported"),
        ("--qr-flag", "--qr-flag or --md-flag is not supported"),
        ("--md-flag", "--qr-flag or --md-flag is not supported"),
        ("--weighted-pooling=learned", "--weighted-pooling=learned is not supported"),
        ("--arch-sparse-feature-size=6 --arch-mlp-bot=4-6", "--arch-sparse-feature-size=6 is not supported"),
        ("--save-onnx", "--save-onnx is not supported"),
        ("--plot-compute-graph", "--plot-compute-graph is not supported"),
        ("--debug-mode", "--debug-mode is not supported"),
        (
            "--sharding=data-parallel",
            "--sharding: 'data-parallel' is refused: TorchRec does not update such tables",
        ),
        (
            "--sharding=column-wise --optimizer=rwsadagrad",
            "--sharding=column-wise: it changes the results of --opt",
        ),
        (
            "--sharding=grid --optimizer=rwsadagrad",
            "--sharding=grid: it changes the results of --optimizer=rwsada",
        ),
    ],
)
def test_what_torchrec_does_not_support_is_refused_by_name(
    flags: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TORCHREC_ENGINE, *flags.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"dlrm_s_pytorch.py: error: {message}")
    assert error.count("\n") == 1


def test_quantization_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--inference-only", "--data-generation=dataset", f"--processed-data-file={tmp_path / 'x'}"]
    size = ["--arch-sparse-feature-size=4", "--arch-mlp-bot=13-4", "--quantize-emb-with-bit=8"]
    assert main(["--engine=torchrec", *flags, *size]) == 2
    assert "--quantize-emb-with-bit=8 is not supported by several processes" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags", ["--sharding=grid --optimizer=adagrad", "--sharding=column-wise", "--sharding=row-wise"]
)
def test_kinds_with_equal_results_are_accepted(flags: str) -> None:
    check_sharding(parse(flags.split()))


def test_kinds_that_change_the_training_only_are_accepted_by_an_evaluation() -> None:
    flags = ["--inference-only", "--data-generation=dataset", "--processed-data-file=x", "--arch-mlp-bot=13-2"]
    check_sharding(parse([*flags, "--sharding=column-wise", "--optimizer=rwsadagrad"]))


def written(folder: Path, content: object) -> Path:
    path = folder / "constraints.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_file_names_kinds_for_single_tables_and_for_all_others(tmp_path: Path) -> None:
    path = written(tmp_path, {"all": ["table-wise", "row-wise"], "1": "row-wise", "2": {"sharding": "row-wise"}})
    settings = parse([f"--sharding-constraints={path}"])
    assert allowed_for_tables(settings, (100, 200, 300, 2), 4, Processes(0, 3, 0, 3)) == [
        Allowed(("table-wise", "row-wise")),
        Allowed(("row-wise",)),
        Allowed(("row-wise",)),
        Allowed(("table-wise",)),  # of two rows, of which a third process would get none
    ]


def test_flag_applies_to_the_tables_that_the_file_does_not_name(tmp_path: Path) -> None:
    path = written(tmp_path, {"1": "table-wise"})
    settings = parse([f"--sharding-constraints={path}", "--sharding=row-wise"])
    kinds = [allowed.kinds for allowed in allowed_for_tables(settings, (100, 200), 4, TWO)]
    assert kinds == [("row-wise",), ("table-wise",)]


@pytest.mark.parametrize(
    ("content", "flags", "message"),
    [
        ("[1", "", "it is not JSON"),
        ([1], "", "it is [1], must be an object with table numbers"),
        ({"first": "row-wise"}, "", "a name is 'first', must be the number of a table"),
        ({"01": "row-wise"}, "", "a name is '01'"),
        ({"1" * 5000: "row-wise"}, "", "a name is '1111"),
        ({"0": "diagonal"}, "", "0 is 'diagonal', must be one of table-wise, row-wise, column-wise"),
        ({"0": []}, "", "0 is [], must be one of table-wise"),
        ({"0": ["row-wise", "row-wise"]}, "", "0 is ['row-wise', 'row-wise'], must be one of"),
        ({"0": None}, "", "0 is None, must be one of"),
        ({"0": [["row-wise"]]}, "", "0 is ['row-wise'], must be one of"),
        ({"0": {"kernel": "fused"}}, "", "0 lacks sharding"),
        ({"0": {"sharding": "row-wise", "rank": 1}}, "", "0 has unknown entries: 'rank'"),
        ({"0": {"sharding": "row-wise", "kernel": "fast"}}, "", "0: kernel is 'fast', must be one of fused"),
        (
            {"0": {"sharding": "row-wise", "kernel": "fused-uvm-caching"}},
            "",
            "0: kernel fused-uvm-caching requires --use-gpu",
        ),
        ({"0": "data-parallel"}, "", "0: 'data-parallel' is refused: TorchRec does not update"),
        ({"0": "column-wise"}, "--optimizer=rwsadagrad", "0: column-wise: it changes the results"),
        ('{"0": "row-wise", "0": "table-wise"}', "", "the key '0' is repeated"),
    ],
)
def test_wrong_file_is_refused_in_one_line(content: object, flags: str, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, content)
    with pytest.raises(UsageError) as caught:
        check_sharding(parse([f"--sharding-constraints={path}", *flags.split()]))
    assert str(caught.value).startswith(f"--sharding-constraints={path}: {message}")
    assert "\n" not in str(caught.value)


def test_file_for_all_tables_contradicts_the_flag(tmp_path: Path) -> None:
    path = written(tmp_path, {"all": "row-wise"})
    with pytest.raises(
        UsageError, match="--sharding=table-wise contradicts the entry all of --sharding-constraints"
    ):
        check_sharding(parse([f"--sharding-constraints={path}", "--sharding=table-wise"]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"2": "row-wise"}, "2: the tables have numbers from 0 to 1"),
        ({"0": "row-wise"}, "0: row-wise is not possible for the table of 3 rows and 4 columns on 4 processes"),
    ],
)
def test_file_that_does_not_fit_the_tables_is_refused(content: object, message: str, tmp_path: Path) -> None:
    path = written(tmp_path, content)
    with pytest.raises(UsageError) as caught:
        allowed_for_tables(parse([f"--sharding-constraints={path}"]), (3, 100), 4, Processes(0, 4, 0, 4))
    assert str(caught.value).startswith(f"--sharding-constraints={path}: {message}")


@pytest.mark.parametrize("content", [{"0": "row-wise"}, {"all": "grid"}])
def test_all_kinds_are_the_same_on_one_process(content: object, tmp_path: Path) -> None:
    settings = parse([f"--sharding-constraints={written(tmp_path, content)}"])
    assert allowed_for_tables(settings, (3, 100), 4, Processes()) == [Allowed(("table-wise",))] * 2


def test_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.json"
    with pytest.raises(RunError, match=rf"^{path}: the constraints cannot be read: No such file"):
        check_sharding(parse([f"--sharding-constraints={path}"]))


def pretend(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str | None]) -> None:
    """Make importlib.metadata state other versions, or with None that a package is missing."""
    real = importlib.metadata.version

    def version(name: str) -> str:
        found = versions.get(name, "") or (real(name) if name not in versions else None)
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)


CPU_PACKAGES = {"torchrec": TORCHREC, "fbgemm-gpu-cpu": FBGEMM, "fbgemm-gpu": None}


@pytest.mark.parametrize(
    ("versions", "use_gpu", "problem"),
    [
        ({"torchrec": None}, False, "torchrec is not installed"),
        ({"torchrec": "1.9.0"}, False, "torchrec 1.9.0 is installed"),
        ({"fbgemm-gpu-cpu": None}, False, "fbgemm-gpu-cpu is not installed"),
        ({"fbgemm-gpu-cpu": "1.9.0"}, False, "fbgemm-gpu-cpu 1.9.0 is installed"),
        ({"fbgemm-gpu-cpu": None, "fbgemm-gpu": "1.7.0"}, False, "fbgemm-gpu-cpu 1.7.0 is installed"),
        ({}, True, "fbgemm-gpu is not installed"),
        ({"fbgemm-gpu": "1.9.0"}, True, "fbgemm-gpu 1.9.0 is installed"),
    ],
)
def test_missing_package_and_other_versions_are_reported_in_one_line(
    versions: dict[str, str | None], use_gpu: bool, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, {**CPU_PACKAGES, **versions})
    with pytest.raises(RunError) as caught:
        require_torchrec(use_gpu=use_gpu)
    message = str(caught.value)
    assert message.startswith(f"several processes and --engine=torchrec need PyTorch {PYTORCH} with torchrec")
    file = f"requirements-distributed{'-gpu' if use_gpu else ''}.txt"
    how = f"run tools/setup.sh {file} and use .venv/bin/python, or pip install --no-deps -r {file}"
    assert message.endswith(f", but {problem} in this Python ({sys.executable}): {how}")
    assert "\n" not in message


def test_another_release_of_pytorch_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.__version__", "2.12.1+cpu")
    with pytest.raises(RunError, match=r"but PyTorch 2\.12\.1\+cpu is installed in this Python"):
        require_torchrec(use_gpu=False)


@pytest.mark.parametrize(
    "error", [ImportError("no symbol\nin line 2"), OSError(), ModuleNotFoundError("No pyvers")]
)
def test_packages_that_do_not_load_are_reported_in_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Finder:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name == "torchrec":
                raise error

    pretend(monkeypatch, CPU_PACKAGES)
    monkeypatch.delitem(sys.modules, "torchrec", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    with pytest.raises(RunError, match=f"but torchrec {TORCHREC} does not load: (no symbol|OSError|No pyvers) in"):
        require_torchrec(use_gpu=False)


def test_versions_that_are_checked_are_those_that_are_installed() -> None:
    pins = (ROOT / "requirements.txt").read_text() + (ROOT / "requirements-distributed.txt").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    for pin in (f"torchrec=={TORCHREC}", f"fbgemm-gpu-cpu=={FBGEMM}", f"torch=={PYTORCH}."):
        assert f"\n{pin}" in pins
    for pin in (f"torchrec=={TORCHREC}", f"fbgemm-gpu=={FBGEMM}", f"torch=={PYTORCH}.*"):
        assert f'"{pin}"' in project
    page = " ".join((ROOT / "mlperf" / "docs" / "distributed.md").read_text().split())
    assert f"PyTorch {PYTORCH}, torchrec {TORCHREC} and FBGEMM {FBGEMM}" in page


# Imports everything but the modules named where TorchRec cannot be imported, then runs the program with it.
WITHOUT = """
import importlib, pkgutil, sys
for name in ("torchrec", "fbgemm_gpu", "tensordict"):
    sys.modules[name] = None
import mlperf
needed = {f"mlperf.engines.torchrec.{name}" for name in sys.argv[1].split(",")}
for module in pkgutil.walk_packages(mlperf.__path__, "mlperf."):
    if module.name not in needed and not module.name.endswith("__main__") and ".gpu." not in module.name:
        importlib.import_module(module.name)
from mlperf.cli.train import main
sys.exit(main(sys.argv[2:]))
"""


def test_only_the_engine_needs_torchrec_which_is_missed_in_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            WITHOUT,
            "dense_work,engine,features,linear_products,plan,step,tables",
            *TORCHREC_ENGINE,
        ],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("dlrm_s_pytorch.py: error: several processes and --engine=torchrec need PyTorch")
    assert done.stderr.count("\n") == 1
