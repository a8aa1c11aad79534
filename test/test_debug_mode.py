"""Output of --debug-mode, compared with the published output and the NumPy implementation."""

from __future__ import annotations

from pathlib import Path

import pytest
from compare_outputs import main as compare
from compare_outputs import within_tolerance
from program import ROOT, golden_flags, run_program

PUBLISHED = (Path(__file__).parent / "debug_mode.txt").read_text()


def test_sample_run_prints_exactly_the_published_output(tmp_path: Path) -> None:
    run = run_program("--mini-batch-size=2", "--data-size=6", "--debug-mode", cwd=tmp_path)
    assert run.stdout == PUBLISHED
    assert run.stderr.splitlines() == [
        "engine: autograd on the CPU, because --data-generation=random can have several ids per table and sample"
    ]


@pytest.mark.parametrize(
    "flags",
    [
        "--mini-batch-size=3 --data-size=10 --arch-interaction-op=cat --activation-function=tanh --nepochs=2 "
        "--loss-function=wbce --loss-weights=1-2",
        "--mini-batch-size=3 --data-size=10 --arch-interaction-itself --loss-function=bce --loss-threshold=0.2 "
        "--round-targets --mlp-init=normal --print-freq=2",
        "--mini-batch-size=4 --num-batches=3 --arch-interaction-op=sum --arch-embedding-size=40-7-100 "
        "--activation-function=sigmoid --num-indices-per-lookup-fixed --print-precision=3",
        "--mini-batch-size=3 --data-size=10 --arch-interaction-op=dcn --dcn-num-layers=2 --dcn-low-rank-dim=5 "
        "--loss-function=bce_logits --round-targets",
        "--mini-batch-size=3 --data-size=10 --arch-interaction-op=dcn --dcn-num-layers=1 --dcn-low-rank-dim=1 "
        "--loss-function=bce --mlp-init=normal --activation-function=tanh",
        "--mini-batch-size=3 --data-size=10 --mlp-init=pytorch --loss-function=bce_logits",
    ],
)
def test_numpy_implementation_prints_the_same(flags: str, tmp_path: Path) -> None:
    outputs = []
    for program in ("dlrm_s_pytorch.py", "test/dlrm_s_numpy.py"):
        run = run_program(*flags.split(), "--learning-rate=0.1", "--debug-mode", cwd=tmp_path, program=program)
        assert run.status == 0, run.stderr
        outputs.append(tmp_path / Path(program).name)
        outputs[-1].write_text(run.stdout)
    assert outputs[0].read_text().count("mini-batch: ") >= 3
    assert compare([str(path) for path in outputs]) == 0


@pytest.mark.parametrize("program", ["dlrm_s_numpy.py", "dlrm_dcnv2_numpy.py"])
def test_numpy_implementations_import_nothing_from_this_project(program: str) -> None:
    allowed = {
        "__future__",
        "argparse",
        "collections",
        "dataclasses",
        "itertools",
        "json",
        "pathlib",
        "sys",
        "typing",
    }
    for name in (program, "numpy_layers.py"):
        lines = (ROOT / "test" / name).read_text().splitlines()
        imported = {
            line.split()[1].partition(".")[0] for line in lines if line.lstrip().startswith(("import", "from"))
        }
        assert imported - allowed <= {"numpy", "numpy_layers"}


@pytest.mark.parametrize(
    ("other", "agrees"),
    [
        ("loss 0.451894, table 3", True),
        ("loss 0.45190, table 3", True),
        ("loss 0.451993, table 3", False),
        ("loss 0.451893, table 4", False),
        ("lost 0.451893, table 3", False),
        ("loss 0.451893", False),
    ],
)
def test_comparison_tolerates_only_rounding(other: str, agrees: bool) -> None:
    assert within_tolerance("loss 0.451893, table 3", other) is agrees


def test_first_three_batches_of_a_data_set_are_printed(terabyte: Path, tmp_path: Path) -> None:
    run = run_program(*golden_flags("sgd", terabyte), "--num-batches=5", "--debug-mode", cwd=tmp_path)
    assert run.status == 0, run.stderr
    lines = run.stdout.splitlines()
    assert [line for line in lines if line.startswith("mini-batch: ")] == [f"mini-batch: {n}" for n in range(3)]
    assert lines.index("updated parameters (weights and bias):") > lines.index("DLRM_Net(")
    assert len(run.losses) == 5
