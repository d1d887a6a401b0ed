"""A cluster for tests: the stand-ins of Kaldi's scripts and of the queues in a folder for PATH."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent / "recipe"
#: Stands for Slurm's srun: starts two tasks on this machine, which is two machines by their environment.
SRUN = """#!/usr/bin/env bash
echo "srun $*, CPUs ${SRUN_CPUS_PER_TASK:-}, to kill on bad exit: ${SLURM_KILL_BAD_EXIT-no}"
[ "$1" = --export=ALL ] && shift
export SLURM_NTASKS=2 SLURM_STEP_NUM_NODES=2 SLURM_STEP_NODELIST='localhost,localhost' SLURM_LOCALID=0
status=0
SLURM_PROCID=1 SLURM_NODEID=1 "$@" & second=$!
SLURM_PROCID=0 SLURM_NODEID=0 "$@" || status=1
wait "${second}" || status=1
exit "${status}"
"""
#: Stands for mpirun, which says only what it was to do.
MPIRUN = """#!/usr/bin/env bash
echo "mpirun $*"
"""
BACKENDS = ("slurm", "sge", "pbs")


def make_cluster(folder: Path) -> Path:
    """Fill a folder with slurm.pl, queue.pl, pbs.pl, sbatch, qsub, srun and mpirun.

    Returns:
        The file that says what jobs asked for, one line for each; it isn't there before the first.
    """
    folder.mkdir()
    stand_ins = {"kaldi": ("slurm.pl", "queue.pl", "pbs.pl"), "queue": ("sbatch", "qsub")}
    for kind, names in stand_ins.items():
        for name in names:
            shutil.copy(HERE / f"{kind}_stand_in.py", folder / name)
            (folder / name).chmod(0o755)
    for name, text in (("srun", SRUN), ("mpirun", MPIRUN)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder / "asked"


def environment(cluster: Path, backend: str) -> dict[str, str]:
    """Return the environment of a user of the cluster."""
    folders = [str(cluster), str(Path(sys.executable).parent), os.environ["PATH"]]
    env = {**os.environ, "PATH": os.pathsep.join(folders), "cmd_backend": backend, "OMP_NUM_THREADS": "1"}
    for name in ("KALDI_ROOT", "PYTHONPATH", "LJSPEECH"):
        env.pop(name, None)
    return env
