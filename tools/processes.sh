# Sourced by run_and_time.sh, which defines fail: the processes of a run.
#
#   choose_processes     checks NPROC, NNODES, NODE_RANK, MASTER_ADDR and SEED, and sets processes, their number on all
#                        nodes.
#   choose_launcher FILE sets launcher, the arguments of Python before the trainer's. FILE: prepared data. If it does
#                        not exist, the other nodes wait longer for the first one, which prepares it. May be empty.

read_number() { # sets the variable named $1 to its value without leading zeros, or to $2; fails unless it is $3 to $4
    local value=${!1:-$2}
    if [[ ! $value =~ ^0*([0-9]{1,9})$ ]] || ((BASH_REMATCH[1] < $3 || BASH_REMATCH[1] > $4)); then
        fail "$1=$value: must be a whole number from $3 to $4"
    fi
    printf -v "$1" %d "$((10#${BASH_REMATCH[1]}))"
}

forget_launcher() { # unsets what srun or mpirun says about its tasks, one on each node: each starts processes itself
    local name
    for name in $(compgen -e); do
        case $name in
        SLURM_STEP_* | SLURM_PROCID | SLURM_NTASKS* | SLURM_NPROCS | SLURM_LOCALID) unset "$name" ;;
        OMPI_* | PMI_* | PMIX_* | MPI_LOCAL* | MV2_* | PALS_* | ALPS_* | JSM_* | FLUX_*) unset "$name" ;;
        esac
    done
}

choose_processes() {
    read_number NPROC 1 1 1024
    read_number NNODES 1 1 65536
    if ((NNODES > 1)); then
        [[ -n ${NODE_RANK:-} ]] || fail "NNODES=$NNODES: needs NODE_RANK, the number of this node, from 0"
        [[ -n ${MASTER_ADDR:-} ]] || fail "NNODES=$NNODES: needs MASTER_ADDR, the address of the node with NODE_RANK=0"
        [[ -n ${SEED:-} ]] || fail "NNODES=$NNODES: needs SEED, the same on all nodes"
        [[ $MASTER_ADDR != *[[:space:][:cntrl:]]* ]] || fail "MASTER_ADDR=$MASTER_ADDR: is not an address"
        forget_launcher
    fi
    read_number NODE_RANK 0 0 $((NNODES - 1))
    read_number MASTER_PORT 29500 1 65535
    processes=$((NPROC * NNODES))
}

choose_launcher() {
    launcher=()
    ((processes > 1)) || return 0
    launcher=(-m mlperf.cli.start_processes --nproc-per-node="$NPROC")
    if ((NNODES == 1)); then
        launcher+=(--standalone)
        return
    fi
    local wait=3600 # seconds
    [[ -z $1 || -e $1 ]] || wait=86400
    launcher+=(--nnodes="$NNODES" --node-rank="$NODE_RANK" --master-addr="$MASTER_ADDR" --master-port="$MASTER_PORT"
        --rdzv-conf="timeout=$wait")
}
