"""Settings of a run of several processes: how the tables are divided, and how the processes communicate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlperf.settings.flags import flag
from mlperf.settings.kinds import MAX_INT32, choice, file_name, whole_between

# --engine. auto: torchrec with several processes; otherwise the fastest of the others that supports the run.
ENGINES = ("auto", "cpu", "gpu", "autograd", "torchrec")
# --sharding, besides "auto".
SHARDING_KINDS = ("table-wise", "row-wise", "column-wise", "table-row-wise", "grid")
# Kinds of TorchRec that are refused, with the reasons.
REFUSED_KINDS = {
    "data-parallel": "is refused: TorchRec does not update such tables in its optimizers, and their checkpoints "
    "cannot be sharded in another way"
}


@dataclass(frozen=True)
class ProcessSettings:
    """Engine, division of the tables and communication."""

    engine: str = flag(
        "--engine",
        choice(*ENGINES),
        "auto",
        "auto: torchrec with several processes, else the fastest of the others that supports the run",
    )
    sharding: str = flag(
        "--sharding",
        choice("auto", *SHARDING_KINDS, refused=REFUSED_KINDS, metavar="KIND"),
        "auto",
        "how torchrec shards the tables: table-wise, row-wise, column-wise, table-row-wise (the rows among the "
        "processes of one node) or grid (rows and columns); auto: its planner decides for each table",
    )
    constraints: Path | None = flag(
        "--sharding-constraints",
        file_name,
        None,
        "file (.json) with the kinds of sharding that single tables may get",
    )
    backend: str = flag(
        "--dist-backend",
        choice("auto", "gloo", "nccl", empty="auto"),  # "" was the default, which scripts still pass
        "auto",
        "communication of the processes; auto: nccl with --use-gpu, else gloo",
    )
    local_rank: int = flag(
        "--local_rank",
        whole_between(-1, MAX_INT32),
        -1,
        "number of this process on its node, as torch.distributed.launch passes it; must agree with LOCAL_RANK",
        aliases=("--local-rank",),
    )

    def backend_for(self, *, use_gpu: bool) -> str:
        """Return the backend of torch.distributed."""
        return ("nccl" if use_gpu else "gloo") if self.backend == "auto" else self.backend
