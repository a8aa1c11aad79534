"""The number of processes, rank and host of rank 0, from the variables of each launcher."""

from __future__ import annotations

import pytest

from mlperf.cli.train import main
from mlperf.distributed.launchers import find_launch, launched_processes
from mlperf.distributed.processes import Processes
from mlperf.distributed.slurm import first_host, tasks_on_node
from mlperf.settings.from_flags import parse
from mlperf.util.errors import UsageError

TORCHRUN = {
    **{"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"},
    **{"MASTER_ADDR": "node1", "MASTER_PORT": "29400"},
    **{"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_USE_AGENT_STORE": "True"},
}
OPEN_MPI = {
    **{"OMPI_COMM_WORLD_RANK": "5", "OMPI_COMM_WORLD_SIZE": "8"},
    **{"OMPI_COMM_WORLD_LOCAL_RANK": "1", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"},
    "PMIX_RANK": "5",
}
SRUN = {
    **{"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "8"},
    **{"SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_STEP_TASKS_PER_NODE": "4(x2)"},
    "SLURM_STEP_NODELIST": "node[03-04]",
}
HOST = {"MASTER_ADDR": "node1"}
LAUNCHERS = {
    "torchrun": TORCHRUN,
    "by hand": {name: value for name, value in TORCHRUN.items() if not name.startswith("TORCHELASTIC")},
    "Open MPI": OPEN_MPI | HOST,
    "MPICH": HOST | {"PMI_RANK": "5", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "4"},
    "MVAPICH": HOST
    | {
        **{"MV2_COMM_WORLD_RANK": "5", "MV2_COMM_WORLD_SIZE": "8"},
        **{"MV2_COMM_WORLD_LOCAL_RANK": "1", "MV2_COMM_WORLD_LOCAL_SIZE": "4"},
    },
    "jsrun": HOST
    | {
        **{"JSM_NAMESPACE_RANK": "5", "JSM_NAMESPACE_SIZE": "8"},
        **{"JSM_NAMESPACE_LOCAL_RANK": "1", "JSM_NAMESPACE_LOCAL_SIZE": "4"},
    },
    "Cray PALS": HOST
    | {
        **{"PALS_RANKID": "5", "PMI_RANK": "5", "PMI_SIZE": "8"},
        **{"PALS_LOCAL_RANKID": "1", "PALS_LOCAL_SIZE": "4"},
    },
    "Flux": HOST
    | {"FLUX_TASK_RANK": "5", "FLUX_JOB_SIZE": "8", "FLUX_TASK_LOCAL_ID": "1", "FLUX_JOB_NNODES": "2"},
    "Horovod": HOST
    | {"HOROVOD_RANK": "5", "HOROVOD_SIZE": "8", "HOROVOD_LOCAL_RANK": "1", "HOROVOD_LOCAL_SIZE": "4"},
    "srun": SRUN,
    "srun --mpi=pmi2": SRUN
    | HOST
    | {"PMI_RANK": "5", "PMI_SIZE": "8", "PMI_LOCAL_RANK": "1", "PMI_LOCAL_SIZE": "4"},
    "mpirun in a job of Slurm": OPEN_MPI | HOST | SRUN | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"},
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_each_launcher_states_which_process_this_is(launcher: str) -> None:
    assert launched_processes(LAUNCHERS[launcher]) == Processes(rank=5, size=8, local_rank=1, local_size=4)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"WORLD_SIZE": "1"},
        {"RANK": "0", "LOCAL_RANK": "0"},  # left in a shell
        {"LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "1", "MPI_LOCALNRANKS": "1"},
        {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0", "PMIX_RANK": "0"},
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # the shell of a batch script
        SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"},
    ],
    ids=str,
)
def test_a_single_process_is_none_of_several(variables: dict[str, str]) -> None:
    assert find_launch(variables) is None
    assert launched_processes(variables) == Processes()


@pytest.mark.parametrize(
    ("variables", "host", "port"),
    [
        (TORCHRUN, "node1", 29400),
        (OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "8"}, "localhost", 29500),
        (OPEN_MPI | HOST, "node1", 29500),
        (SRUN | {"MASTER_PORT": "4000"}, "node03", 4000),
        (SRUN | {"SLURM_STEP_NODELIST": "login1,node[1-3]"} | {"MASTER_PORT": "4000"}, "login1", 4000),
    ],
)
def test_host_and_port_of_rank_0(variables: dict[str, str], host: str, port: int) -> None:
    launch = find_launch(variables)
    assert launch is not None
    assert (launch.host, launch.port) == (host, port)


def test_two_jobs_or_steps_of_slurm_on_one_node_use_different_ports() -> None:
    launches = [find_launch(SRUN | {"SLURM_JOB_ID": job}) for job in ("7", "8", "7")]
    first, other, same = (launch.port for launch in launches if launch is not None)
    assert first == same != other
    step = find_launch(SRUN | {"SLURM_STEP_ID": "1"})
    assert step is not None
    assert step.port != first
    assert 1024 < first < 32768  # below those of outgoing connections


@pytest.mark.parametrize("variables", [{"WORLD_SIZE": "8"}, {"RANK": "x"}, {}], ids=str)
def test_help_does_not_depend_on_variables_of_a_launcher(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code in (0, None)
    assert capsys.readouterr().out.startswith("dlrm_s_pytorch.py ")


WRONG = [
    ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2: RANK is not set; set RANK, WORLD_SIZE, "),
    ({"RANK": "1"}, "RANK=1: WORLD_SIZE is not set"),
    ({"RANK": "1", "WORLD_SIZE": "two"}, "WORLD_SIZE=two: must be a whole number from 0 on"),
    ({"RANK": "2", "WORLD_SIZE": "2"}, "WORLD_SIZE=2: RANK=2 must be less"),
    ({"RANK": "1", "WORLD_SIZE": "2"}, "WORLD_SIZE=2: MASTER_ADDR is not set"),
    (TORCHRUN | {"MASTER_PORT": "70000"}, "MASTER_PORT=70000: must be from 1 to 65535"),
    ({"RANK": "0", "LOCAL_WORLD_SIZE": "2"}, "RANK=0: WORLD_SIZE is not set"),
    ({"PMI_RANK": "0"}, "PMI_RANK=0: PMI_SIZE is not set"),
    ({"WORLD_SIZE": "9" * 5000}, f"WORLD_SIZE={'9' * 77}...: must be a whole number from 0 on"),
    (TORCHRUN | {"WORLD_SIZE": "1000000000"}, "WORLD_SIZE=1000000000: there may be at most 100,000 processes"),
    (SRUN | {"SLURM_STEP_TASKS_PER_NODE": "9" * 5000}, "all nodes must have the same number of processes"),
    (SRUN | {"SLURM_STEP_NODELIST": "node["}, "SLURM_STEP_NODELIST=node[: is not a list of hosts"),
    (SRUN | {"SLURM_STEP_NODELIST": "node[a-b]"}, "SLURM_STEP_NODELIST=node[a-b]: is not a list of hosts"),
    ({"PMIX_RANK": "0"}, "PMIX_RANK=0: the number of processes is not stated"),
    ({"MPI_LOCALNRANKS": "2"}, "MPI_LOCALNRANKS=2: PMI_SIZE is not set"),
    (OPEN_MPI, "OMPI_COMM_WORLD_SIZE=8: Open MPI does not state the host of rank 0: set MASTER_ADDR"),
    (SRUN | {"SLURM_STEP_TASKS_PER_NODE": "4,3"}, "all nodes must have the same number of processes"),
    (
        OPEN_MPI | {"JSM_NAMESPACE_RANK": "1", "JSM_NAMESPACE_SIZE": "2"},
        "Open MPI states process 5 of 8, but jsrun process 1 of 2",
    ),
    (
        SRUN | HOST | {"MASTER_PORT": "1", "RANK": "0", "WORLD_SIZE": "8"},  # exported by a batch script
        "Slurm states process 5 of 8, but torchrun process 0 of 8: unset the variables of one of them",
    ),
]


@pytest.mark.parametrize(("variables", "message"), WRONG, ids=[message for _, message in WRONG])
def test_incomplete_and_contradicting_variables_are_refused(variables: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        find_launch(variables)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_local_rank_stands_for_a_variable_that_is_not_set() -> None:
    variables = {name: value for name, value in TORCHRUN.items() if name != "LOCAL_RANK"}
    assert launched_processes(variables, local_rank=1).local_rank == 1
    with pytest.raises(UsageError, match="set LOCAL_RANK, or pass --local_rank"):
        launched_processes(variables)


def test_local_rank_must_agree_with_the_variable() -> None:
    assert launched_processes(TORCHRUN, local_rank=1).local_rank == 1
    with pytest.raises(UsageError, match="--local_rank=2 contradicts LOCAL_RANK=1"):
        launched_processes(TORCHRUN, local_rank=2)
    with pytest.raises(UsageError, match="--local_rank=1: this is the only process"):
        launched_processes({}, local_rank=1)


def test_both_spellings_of_local_rank_are_accepted() -> None:
    for flag in ("--local_rank=3", "--local-rank=3"):
        assert parse([flag]).processes.local_rank == 3


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("node1", "node1"),
        ("node[03-05,7]", "node03"),
        ("login1,node[1-2]", "login1"),
        ("rack[1-2]node[3,5],x", "rack1node3"),
        ("gpu-a[10-12].cluster", "gpu-a10.cluster"),
    ],
)
def test_first_host_of_a_compressed_list(hosts: str, first: str) -> None:
    assert first_host({"SLURM_NODELIST": hosts}) == first


@pytest.mark.parametrize(("text", "count"), [("4", 4), ("2(x8)", 2), ("16(x2),16", 16)])
def test_tasks_of_a_node_of_slurm(text: str, count: int) -> None:
    assert tasks_on_node({"SLURM_STEP_TASKS_PER_NODE": text}) == count
