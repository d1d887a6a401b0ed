#!/usr/bin/env bash
# What the recipes' jobs are started by: the command with this copy of the package, and with the threads that the job has.
#
#   job.sh <processes> <command>...
#
# A job of a queue has the CPUs that the queue says it gave (Slurm, SGE, PBS), at most those that this process may run on;
# else it has the latter. So many processes share them: the jobs of an array on one machine, the ranks of a training.
# OMP_NUM_THREADS of the environment is a limit, too. Without a queue, a process alone keeps the libraries' own choice.
set -euo pipefail

# As a whole number, or nothing: the CPUs on this machine that a queue gave to the job.
given_by_queue() {
    local given=${SLURM_CPUS_PER_TASK:-}
    if [ -z "${given}" ] && [ -n "${NSLOTS:-}" ]; then
        given=$((NSLOTS / ${NHOSTS:-1})) # SGE counts the slots of all machines
    elif [ -z "${given}" ] && [ -n "${PBS_JOBID:-}" ]; then
        given=${NCPUS:-${PBS_NUM_PPN:-}}
    fi
    [[ ! ${given} =~ ^[0-9]+$ ]] || echo $((given > 0 ? given : 1))
}

processes=$1
shift
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
case ":${PYTHONPATH:-}:" in
    *":${root}:"*) ;;
    *) export PYTHONPATH="${root}${PYTHONPATH:+:${PYTHONPATH}}" ;; # queues don't pass it on
esac

given=$(given_by_queue)
if [ -n "${given}" ] || [ "${processes}" -gt 1 ]; then
    cpus=$(env -u OMP_NUM_THREADS nproc 2> /dev/null || getconf _NPROCESSORS_ONLN)
    [ -z "${given}" ] || [ "${given}" -ge "${cpus}" ] || cpus=${given}
    threads=$((cpus >= processes ? cpus / processes : 1))
    [[ ! ${OMP_NUM_THREADS:-} =~ ^[0-9]+$ ]] || [ "${OMP_NUM_THREADS}" -ge "${threads}" ] || threads=${OMP_NUM_THREADS}
    export OMP_NUM_THREADS=${threads}
fi
exec "$@"
