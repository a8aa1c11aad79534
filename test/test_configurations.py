"""Configurations of run_and_time.sh are shell code: what worked before they were checked still works."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from program import ROOT

VARIABLES = """BATCH_SIZE=2048
TEST_BATCH_SIZE=512
LEARNING_RATE=1
WARMUP_STEPS=0
DECAY_START_STEP=0
DECAY_STEPS=0
EPOCHS=1
"""


@pytest.mark.parametrize(
    "content",
    [
        VARIABLES + "echo for this machine\nprintf 'without a line end' >&2\n",
        VARIABLES + "trap 'echo cleared >&2' EXIT\n",
        VARIABLES + "sleep 30 >&2 & watcher=$!\n",
        VARIABLES + '[[ -n $caller ]]\nTRAINER_FLAGS=(--save-model="$logdir/$seed")\n',
        VARIABLES + "lr() { echo 0.1; }\nLEARNING_RATE=$(lr)\nexport OMP_NUM_THREADS=1\nreturn 0\n",
        'source "${BASH_SOURCE[0]%/*}/common.inc"\n',
        VARIABLES.replace("2048", '" +2048 "'),
        ("\ufeff" + VARIABLES).replace("\n", "\r\n"),
        "\ufeff" + VARIABLES,
    ],
)
def test_configuration_is_accepted(content: str, tmp_path: Path) -> None:
    (tmp_path / "x_train.bin").touch()
    (tmp_path / "common.inc").write_text(VARIABLES)
    (tmp_path / "mine.sh").write_text(content, encoding="utf-8")
    with (tmp_path / "stderr").open("w") as stderr:
        # This flag ends the script after it has read the configuration.
        done = subprocess.run(
            [str(ROOT / "run_and_time.sh"), "--no-such-flag"],
            env={
                "PATH": "/usr/bin:/bin",
                "DLRM_PYTHON": sys.executable,
                "DATADIR": str(tmp_path),
                "CONFIG": str(tmp_path / "mine.sh"),
                "LOGDIR": str(tmp_path / "logs"),
            },
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            check=False,
            timeout=15,
        )
    assert done.returncode == 2
    assert "error: unrecognized arguments: --no-such-flag" in (tmp_path / "stderr").read_text()
