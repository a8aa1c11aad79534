"""How the processes of a run were started: the environment variables of torchrun, MPI launchers and Slurm."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mlperf.distributed.processes import Processes
from mlperf.distributed.slurm import first_host, is_step, tasks_on_node, whole_number
from mlperf.util.errors import UsageError
from mlperf.util.printable import shown_name

_DEFAULT_PORT = 29500  # also that of torchrun
# Ports that are derived from the number of a job: below those that Linux gives to outgoing connections.
_FIRST_PORT, _PORTS = 15000, 10000
_MAX_PROCESSES = 100_000  # more are a mistake, and each process stores a state of each

_BY_HAND = "set RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR and MASTER_PORT, or use torchrun"


class _Family(NamedTuple):
    """The variables of a launcher; of several for one number, the first that is set counts.

    rank, size: number of this process and number of processes. local_rank, local_size: the same on this node.
    job: what distinguishes the runs on one node.
    """

    name: str
    rank: tuple[str, ...]
    size: tuple[str, ...]
    local_rank: tuple[str, ...]
    local_size: tuple[str, ...]
    job: tuple[str, ...] = ()


_TORCHRUN = _Family("torchrun", ("RANK",), ("WORLD_SIZE",), ("LOCAL_RANK",), ("LOCAL_WORLD_SIZE",))
_SLURM = _Family(
    "Slurm",
    ("SLURM_PROCID",),
    ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS"),
    ("SLURM_LOCALID",),
    (),
    ("SLURM_JOB_ID", "SLURM_JOBID"),
)
_MPI = (
    _Family(
        "Open MPI",
        ("OMPI_COMM_WORLD_RANK",),
        ("OMPI_COMM_WORLD_SIZE",),
        ("OMPI_COMM_WORLD_LOCAL_RANK",),
        ("OMPI_COMM_WORLD_LOCAL_SIZE",),
        ("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "OMPI_MCA_orte_ess_jobid"),
    ),
    _Family(
        "MVAPICH",
        ("MV2_COMM_WORLD_RANK",),
        ("MV2_COMM_WORLD_SIZE",),
        ("MV2_COMM_WORLD_LOCAL_RANK",),
        ("MV2_COMM_WORLD_LOCAL_SIZE",),
    ),
    _Family(
        "jsrun",
        ("JSM_NAMESPACE_RANK",),
        ("JSM_NAMESPACE_SIZE",),
        ("JSM_NAMESPACE_LOCAL_RANK",),
        ("JSM_NAMESPACE_LOCAL_SIZE",),
        ("LSB_JOBID",),
    ),
    _Family(
        "Cray PALS",
        ("PALS_RANKID",),
        ("PALS_SIZE", "PMI_SIZE"),
        ("PALS_LOCAL_RANKID", "PMI_LOCAL_RANK"),
        ("PALS_LOCAL_SIZE", "PMI_LOCAL_SIZE"),
        ("PALS_APID",),
    ),
    _Family("Flux", ("FLUX_TASK_RANK",), ("FLUX_JOB_SIZE",), ("FLUX_TASK_LOCAL_ID",), (), ("FLUX_JOB_ID",)),
    _Family(
        "Horovod",
        ("HOROVOD_RANK",),
        ("HOROVOD_SIZE",),
        ("HOROVOD_LOCAL_RANK",),
        ("HOROVOD_LOCAL_SIZE",),
    ),
    _Family(
        "MPICH",  # and Intel MPI
        ("PMI_RANK",),
        ("PMI_SIZE",),
        ("MPI_LOCALRANKID", "PMI_LOCAL_RANK"),
        ("MPI_LOCALNRANKS", "PMI_LOCAL_SIZE"),
        ("PMI_KVSNAME",),
    ),
)
# Numbers of a process that come without the number of processes, if no other launcher states it.
_RANK_ONLY = ("PMIX_RANK", "ALPS_APP_PE")


@dataclass(frozen=True)
class Launch:
    """How the processes of a run were started, seen from one of them.

    rank, size: as in `Processes`. local_rank, local_size: None if the launcher does not say.
    host, port: where the store of the run accepts connections.
    has_agent: whether the store is in torchrun's agent; otherwise it is in the process of rank 0.
    run: distinguishes the attempts of a run and the runs of a store.
    """

    launcher: str
    rank: int
    size: int
    local_rank: int | None
    local_size: int | None
    host: str
    port: int
    has_agent: bool = False
    run: str = ""

    def processes(self, local_rank: int = -1) -> Processes:
        """Return the processes. local_rank: of --local_rank; -1 if it is not given.

        UsageError if the numbers on this node are missing or contradict each other.
        """
        own = self.local_rank
        if own is not None and local_rank not in (-1, own):
            raise UsageError(f"--local_rank={local_rank} contradicts LOCAL_RANK={own} of {self.launcher}")
        own = local_rank if own is None else own
        if own < 0:
            raise UsageError(
                f"{self.launcher} does not state the number of this process on its node: set LOCAL_RANK, or pass "
                "--local_rank"
            )
        if self.local_size is None:
            raise UsageError(f"{self.launcher} does not state the processes of a node: set LOCAL_WORLD_SIZE")
        if not own < self.local_size <= self.size:
            raise UsageError(
                f"{self.launcher}: local rank {own} of {self.local_size} processes on this node, of {self.size} "
                "in all: the variables contradict each other"
            )
        return Processes(self.rank, self.size, own, self.local_size)


def find_launch(environment: Mapping[str, str] | None = None) -> Launch | None:
    """Return how the processes were started, or None if this is the only one.

    environment: environment variables; if None, those of this process. UsageError if variables are missing or
    contradict each other, or do not tell where rank 0 runs.
    """
    variables = _set_variables(environment)
    chosen = _chosen(variables)
    if chosen is None or chosen.size == 1:
        return None
    local_rank = _number(variables, (*_TORCHRUN.local_rank, *chosen.family.local_rank))
    local_size = _local_size(variables, chosen)
    if chosen.family is _TORCHRUN:
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            if name not in variables:
                raise UsageError(f"{chosen.stated}: {name} is not set; {_BY_HAND}")
    host = variables.get("MASTER_ADDR") or _first_host(variables, chosen, local_size)
    return Launch(
        chosen.family.name,
        *(chosen.rank, chosen.size, local_rank, local_size),
        *(host, _port(variables, chosen.family)),
        has_agent=variables.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        run=f"{variables.get('TORCHELASTIC_RUN_ID') or _job(variables, chosen.family)}/{attempts(variables)}",
    )


def launched_processes(environment: Mapping[str, str] | None = None, local_rank: int = -1) -> Processes:
    """Return the processes that a launcher has started, or one. Arguments and errors as above."""
    launch = find_launch(environment)
    if launch is not None:
        return launch.processes(local_rank)
    if local_rank > 0:
        raise UsageError(f"--local_rank={local_rank}: this is the only process, whose number is 0")
    return Processes()


_ONE = (
    "this program supports one process, because each would do the whole job and write the same files; start one "
    "process, or unset the variable"
)


def require_one_process(environment: Mapping[str, str] | None = None, *, reason: str = _ONE) -> None:
    """Raise UsageError if a launcher has started several processes.

    environment: as in `find_launch`. reason: why that is refused, and what to do.
    """
    variables = _set_variables(environment)
    chosen = _chosen(variables)
    if chosen is not None and chosen.size > 1:
        raise UsageError(f"{chosen.stated}: {reason}")


def attempts(environment: Mapping[str, str] | None = None) -> int:
    """Return how many times torchrun has started this run again (--max-restarts)."""
    return whole_number(_set_variables(environment).get("TORCHELASTIC_RESTART_COUNT", "")) or 0


def _set_variables(environment: Mapping[str, str] | None) -> dict[str, str]:
    """Return the variables that are not empty. environment: as in `find_launch`."""
    given = os.environ if environment is None else environment
    return {name: value.strip() for name, value in given.items() if value.strip()}


class _Found(NamedTuple):
    """What the variables of a launcher state. stated: the number of processes as in the environment."""

    family: _Family
    rank: int
    size: int
    stated: str


def _chosen(variables: Mapping[str, str]) -> _Found | None:
    """Return what the innermost launcher states, None if there is none."""
    by_hand = _found(variables, _TORCHRUN)
    if "TORCHELASTIC_RUN_ID" in variables:
        return by_hand
    mpi = [found for family in _MPI if (found := _found(variables, family)) is not None]
    # mpirun starts its daemons by srun: its processes have Slurm's variables of a daemon.
    launchers = mpi or ([found] if is_step(variables) and (found := _found(variables, _SLURM)) else [])
    for other in launchers[1:]:
        _require_same(launchers[0], other)
    if by_hand is None:
        if not launchers:
            _require_total(variables)
        return launchers[0] if launchers else None
    if launchers and by_hand.size <= launchers[0].size:  # more: a task of the launcher starts several
        _require_same(launchers[0], by_hand)
    return by_hand


def _found(variables: Mapping[str, str], family: _Family) -> _Found | None:
    """Return what the variables of one launcher state, None if none is set. UsageError if one is missing."""
    own = [names[0] for names in (family.rank, family.size, family.local_size) if names]
    if not any(name in variables for name in own):
        return None
    rank, size = _number(variables, family.rank), _number(variables, family.size)
    if size == 1 and not rank:
        return _Found(family, 0, 1, "")
    if size is None and not rank and _is_left_over(variables, family):
        return None
    missing, there = (family.size, family.rank) if size is None else (family.rank, family.size)
    if rank is None or size is None:
        shown = next(f"{name}={variables[name]}" for name in (*there, *own) if name in variables)
        raise UsageError(f"{shown}: {missing[0]} is not set; {_BY_HAND}")
    stated = next(f"{name}={variables[name]}" for name in family.size if name in variables)
    if size > _MAX_PROCESSES:
        raise UsageError(f"{stated}: there may be at most {_MAX_PROCESSES:,} processes")
    if rank >= size:
        raise UsageError(f"{stated}: {family.rank[0]}={rank} must be less")
    return _Found(family, rank, size, stated)


def _is_left_over(variables: Mapping[str, str], family: _Family) -> bool:
    """Return whether variables without the number of processes do not tell of others.

    One process on this node says nothing of others. RANK has a name that other programs use, and torchrun never
    sets it alone; the variables of MPI are set by a launcher, which has a number of processes.
    """
    if _number(variables, family.local_size) not in (None, 1):
        return False
    return family is _TORCHRUN or not any(name in variables for name in family.rank)


def _require_total(variables: Mapping[str, str]) -> None:
    """Refuse the number of a process without the number of processes."""
    for name in _RANK_ONLY:
        if name in variables:
            raise UsageError(f"{name}={variables[name]}: the number of processes is not stated; {_BY_HAND}")


def _require_same(first: _Found, other: _Found) -> None:
    if (first.rank, first.size) != (other.rank, other.size):
        raise UsageError(
            f"{first.family.name} states process {first.rank} of {first.size}, but {other.family.name} process "
            f"{other.rank} of {other.size}: unset the variables of one of them"
        )


def _number(variables: Mapping[str, str], names: Sequence[str]) -> int | None:
    """Return the first number that is set, None if there is none."""
    for name in names:
        if name in variables:
            if (number := whole_number(variables[name])) is None:
                raise UsageError(f"{name}={shown_name(variables[name])}: must be a whole number from 0 on")
            return number
    return None


def _local_size(variables: Mapping[str, str], found: _Found) -> int | None:
    size = _number(variables, (*_TORCHRUN.local_size, *found.family.local_size))
    if size is not None:
        return size
    if found.family is _SLURM:
        return tasks_on_node(variables)
    nodes = _number(variables, ("FLUX_JOB_NNODES",)) if found.family.name == "Flux" else None
    return found.size // nodes if nodes and found.size % nodes == 0 else None


def _first_host(variables: Mapping[str, str], found: _Found, local_size: int | None) -> str:
    if found.size == local_size:
        return "localhost"
    if found.family is _SLURM and (host := first_host(variables)) is not None:
        return host
    raise UsageError(f"{found.stated}: {found.family.name} does not state the host of rank 0: set MASTER_ADDR")


def _port(variables: Mapping[str, str], family: _Family) -> int:
    """Return MASTER_PORT, or a port that differs between jobs of one node."""
    port = _number(variables, ("MASTER_PORT",))
    if port is not None:
        if not 0 < port < 65536:
            raise UsageError(f"MASTER_PORT={port}: must be from 1 to 65535")
        return port
    job = _job(variables, family)
    return _FIRST_PORT + zlib.crc32(job.encode()) % _PORTS if job else _DEFAULT_PORT


def _job(variables: Mapping[str, str], family: _Family) -> str:
    """Return what distinguishes the runs on one node, "" if nothing does. A job of Slurm has several steps."""
    job = next((variables[name] for name in family.job if name in variables), "")
    return f"{job}.{variables.get('SLURM_STEP_ID', '')}" if job and family is _SLURM else job
