from pathlib import Path

import pytest
from equal_runs import assert_equal_runs
from processes import in_processes, needs_torchrec

pytestmark = [in_processes, needs_torchrec]

MODEL = (
    *("--arch-sparse-feature-size=16", "--arch-mlp-bot=13-32-16", "--arch-mlp-top=32-16-1", "--loss-function=bce"),
    *("--data-generation=dataset", "--data-set=terabyte", "--mlperf-bin-loader", "--max-ind-range=40000000"),
    *("--mini-batch-size=128", "--test-mini-batch-size=60", "--print-freq=1", "--test-freq=5"),
    "--mlperf-logging",
)
DCN = (
    "--arch-interaction-op=dcn",
    "--dcn-num-layers=2",
    "--dcn-low-rank-dim=8",
    "--loss-function=bce_logits",
    "--mlp-init=pytorch",
)
OPT = {
    "sgd": ["--learning-rate=0.1"],
    "adagrad": ["--learning-rate=0.01", "--optimizer=adagrad"],
    "rws": ["--learning-rate=0.01", "--optimizer=rwsadagrad"],
    "warm": [
        "--learning-rate=0.1",
        "--lr-num-warmup-steps=4",
        "--lr-decay-start-step=6",
        "--lr-num-decay-steps=5",
    ],
    "dcn": [*DCN, "--learning-rate=0.01", "--optimizer=adagrad", "--adagrad-epsilon=1e-5"],
    "multi": [
        *DCN,
        "--learning-rate=0.01",
        "--optimizer=adagrad",
        "--adagrad-epsilon=1e-5",
        "--multi-hot-sizes=" + "-".join(["3", "1"] * 13),
    ],
    "bf16": ["--learning-rate=0.1", "--precision=bf16"],
    "odd": ["--learning-rate=0.1", "--mini-batch-size=7", "--num-batches=11"],
    "few": ["--learning-rate=0.1", "--mini-batch-size=2", "--num-batches=11"],
    "shuf": ["--learning-rate=0.1", "--mlperf-bin-shuffle", "--nepochs=2"],
    "wbce": ["--learning-rate=0.1", "--loss-function=wbce", "--loss-weights=0.5-2", "--loss-threshold=0.1"],
    "mse": ["--learning-rate=0.1", "--loss-function=mse"],
}


@pytest.mark.parametrize("name", OPT)
@pytest.mark.parametrize("kind", ["auto", "row-wise"])
def test_losses(terabyte: Path, name, kind) -> None:
    assert_equal_runs(
        [1, 2, 3, 4], [[*MODEL, f"--processed-data-file={terabyte}", *OPT[name], f"--sharding={kind}"]]
    )
