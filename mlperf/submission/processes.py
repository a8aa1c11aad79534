"""The processes of the runs of a submission: how many are started, and what the logs state about them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from mlperf.compliance.log_reader import Log
from mlperf.compliance.process_keys import ACCELERATORS_PER_NODE, NUMBER_OF_NODES, PROCESSES_PER_NODE
from mlperf.submission.system_description import Description
from mlperf.util.errors import UsageError


def processes_of_environment() -> int:
    """Return NPROC, the number of processes that run_and_time.sh starts. UsageError if it cannot be used here."""
    for name in ("NNODES", "NPROC"):
        value = os.environ.get(name, "") or "1"
        if not (value.isascii() and value.isdecimal() and int(value) > 0):
            raise UsageError(f"{name}={value} in the environment: must be a whole number from 1 on")
        if name == "NNODES" and int(value) > 1:
            raise UsageError(
                f"NNODES={value} in the environment: this program runs on one machine; make the runs with "
                "run_and_time.sh on each, and name their logs with --logs"
            )
    return int(os.environ.get("NPROC", "") or 1)


@dataclass(frozen=True)
class LoggedProcesses:
    """What a log states about the processes of its run; one, on one node, if it states nothing.

    accelerators: per node; None if the log does not state them.
    """

    nodes: int
    per_node: int
    accelerators: int | None

    @staticmethod
    def of(logs: Sequence[Log]) -> LoggedProcesses:
        """Return the first value of each key in the logs, which `check_consistency` compares with each other."""

        def first(key: str) -> int | None:
            values = [log.value(key) for log in logs]
            return next((value for value in values if type(value) is int and value >= 0), None)

        return LoggedProcesses(
            first(NUMBER_OF_NODES) or 1, first(PROCESSES_PER_NODE) or 1, first(ACCELERATORS_PER_NODE)
        )

    @property
    def description(self) -> Description:
        """The fields of the system description that the logs state."""
        if self.accelerators is None:
            return {}
        return {NUMBER_OF_NODES: str(self.nodes), ACCELERATORS_PER_NODE: str(self.accelerators)}

    @property
    def variables(self) -> str:
        """The variables with which run_and_time.sh starts as many processes, followed by a space, or ""."""
        found = "" if self.per_node == 1 else f"NPROC={self.per_node} "
        if self.nodes > 1:
            found += f"NNODES={self.nodes} NODE_RANK=$NODE_RANK MASTER_ADDR=$MASTER_ADDR "
        return found
