"""Slurm's environment variables: whether srun started this process, the tasks of a node, the first host."""

from __future__ import annotations

import re
from collections.abc import Mapping

from mlperf.util.errors import UsageError
from mlperf.util.printable import shown_name

_NODE_LISTS = ("SLURM_STEP_NODELIST", "SLURM_NODELIST", "SLURM_JOB_NODELIST")
_MAX_DIGITS = 18
_TASKS = ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE")


def whole_number(text: str) -> int | None:
    """Return the number that a variable states, None if that is none, or none of a process, host or port."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS else None


def is_step(variables: Mapping[str, str]) -> bool:
    """Return whether srun started this process.

    In the shell of a job (salloc, sbatch), SLURM_NTASKS is the number of tasks that srun would start. Only srun
    sets SLURM_STEP_ID, and SLURM_PROCID for each process; a batch script has SLURM_PROCID=0 without a step.
    """
    if "SLURM_STEP_NUM_TASKS" in variables:
        return True
    is_shell_of_job = "SLURM_JOB_ID" in variables and "SLURM_STEP_ID" not in variables
    return "SLURM_PROCID" in variables and not is_shell_of_job


def tasks_on_node(variables: Mapping[str, str]) -> int | None:
    """Return the tasks on this node, None if Slurm does not say. UsageError if nodes have different numbers."""
    text = next((variables[name] for name in _TASKS if name in variables), None)
    if text is None:
        return None
    counts = set(map(whole_number, re.findall(r"(?<!x)\b\d+", text)))  # of "2(x3),1": 2 and 1
    if len(counts) > 1 or None in counts:
        raise UsageError(f"{_TASKS[0]}={shown_name(text)}: all nodes must have the same number of processes")
    return counts.pop() if counts else None


def first_host(variables: Mapping[str, str]) -> str | None:
    """Return the first host of the step, None if Slurm does not say.

    A list of hosts is compressed: "node[03-05,7],login1" begins with node03, "a[1-2]b[3-4]" with a1b3.
    """
    text = next((variables[name] for name in _NODE_LISTS if name in variables), None)
    if text is None:
        return None
    first = re.fullmatch(r"((?:[^,\[\]\s]|\[[0-9][^\[\]]*\])+)(?:,.*)?", text)
    if first is None:
        where = f"{_NODE_LISTS[0]}={shown_name(text)}"
        raise UsageError(f"{where}: is not a list of hosts; set MASTER_ADDR to the host of rank 0")
    return re.sub(r"\[([0-9]+)[^\]]*\]", r"\1", first[1])
