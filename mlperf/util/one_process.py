"""Refusal to run as one of several processes, each of which would do the whole job and write the same files."""

from __future__ import annotations

import os
from collections.abc import Mapping

from mlperf.util.errors import UsageError

# Variables in which launchers state the number of processes.
_SIZES = (
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE"),  # torchrun
    "OMPI_COMM_WORLD_SIZE",  # Open MPI
    *("PMI_SIZE", "MPI_LOCALNRANKS"),  # MPICH, Intel MPI, Cray
    "MV2_COMM_WORLD_SIZE",  # MVAPICH2
    "PALS_LOCAL_SIZE",  # Cray PALS
    "JSM_NAMESPACE_SIZE",  # jsrun
    "FLUX_JOB_SIZE",  # Flux
    "HOROVOD_SIZE",  # horovodrun
)
# Variables with the number of this process, from 0: some launchers state no total.
_RANKS = (
    *("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "MV2_COMM_WORLD_RANK", "SLURM_PROCID"),
    *("PALS_RANKID", "ALPS_APP_PE", "JSM_NAMESPACE_RANK", "FLUX_TASK_RANK", "HOROVOD_RANK"),
)

_REASON = (
    "only one process is supported, because each would run the whole job and write the same files; start one "
    "process, or unset the variable"
)


def require_one_process(environment: Mapping[str, str] | None = None) -> None:
    """Raise UsageError if a launcher (torchrun, MPI, Slurm, ...) started more than one process.

    environment: environment variables; if None, those of this process.
    """
    variables = os.environ if environment is None else environment
    for name in (*_SIZES, *_slurm_sizes(variables)):
        if variables.get(name, "").strip() not in ("", "1"):
            raise UsageError(f"{name}={variables[name]}: {_REASON}")
    for name in _RANKS:
        if variables.get(name, "").strip().lstrip("0") and variables[name].strip().isdecimal():
            raise UsageError(f"{name}={variables[name]}, which is not the first process: {_REASON}")


def _slurm_sizes(variables: Mapping[str, str]) -> tuple[str, ...]:
    """Return the variables of Slurm that state how many processes run this program.

    In the shell of a job (salloc, sbatch) SLURM_NTASKS is the number of tasks that srun would start. Only srun
    sets SLURM_STEP_ID, and SLURM_PROCID for each process; a batch script has SLURM_PROCID=0 without a step.
    """
    if "SLURM_STEP_NUM_TASKS" in variables:
        return ("SLURM_STEP_NUM_TASKS",)
    is_shell_of_job = "SLURM_JOB_ID" in variables and "SLURM_STEP_ID" not in variables
    if "SLURM_PROCID" in variables and not is_shell_of_job:
        return ("SLURM_NTASKS", "SLURM_NPROCS")
    return ()
