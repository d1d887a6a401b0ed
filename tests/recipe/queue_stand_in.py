#!/usr/bin/env python3
"""Stands for sbatch, and for SGE's and PBS's qsub: runs a job's tasks at once on this machine, one after the other.

A job gets PATH of the caller's environment and what the queue sets, nothing else, and as many CPUs as it asked for, if
there are so many. What was asked for is added to ``asked`` beside this file, a line for each job.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

NAME = Path(sys.argv[0]).name


def slurm(words: list[str]) -> tuple[argparse.Namespace, dict[str, str], str]:
    """Read sbatch's command line: options, the job's environment and how its number is told."""
    parser = argparse.ArgumentParser(NAME, allow_abbrev=False)
    parser.add_argument("--export", required=True)
    parser.add_argument("--cpus-per-task", dest="cpus", type=int, default=0)
    parser.add_argument("--gres", default="gpu:0")
    parser.add_argument("--array", default="")
    for option in ("-o", "-e", "--ntasks-per-node", "--open-mode", "--job-name", "--mem", "--time", "--nodes"):
        parser.add_argument(option)
    parser.add_argument("script")
    args = parser.parse_args(words)
    gpus = int(re.fullmatch(r"gpu:(\d+)", args.gres)[1])
    if gpus > 8:
        sys.exit(
            f"{NAME}: error: Batch job submission failed: Requested node configuration is not available ({gpus} GPUs)"
        )
    env = {"SLURM_JOB_ID": "17", "SLURM_EXPORT_ENV": args.export}
    if args.cpus:
        env["SLURM_CPUS_PER_TASK"] = str(args.cpus)
    print("Submitted batch job 17")
    return args, env, "SLURM_ARRAY_TASK_ID"


def qsub(words: list[str]) -> tuple[argparse.Namespace, dict[str, str], str]:
    """Read qsub's command line, SGE's or PBS's."""
    parser = argparse.ArgumentParser(NAME, allow_abbrev=False)
    parser.add_argument("-v", dest="export", required=True)
    parser.add_argument("-pe", nargs=2, action="append", default=[])
    parser.add_argument("-l", action="append", default=[])
    parser.add_argument("-t", "-J", dest="array", default="")
    parser.add_argument("-cwd", action="store_true")
    for option in ("-o", "-S", "-j", "-N", "-tc"):
        parser.add_argument(option)
    parser.add_argument("script")
    args = parser.parse_args(words)
    sge = args.cwd
    if len(args.pe) > 1:
        sys.exit(f"{NAME}: a job has one parallel environment, not {args.pe}")
    resources = dict(item.split("=") for item in args.l)
    smp = args.pe and args.pe[0][0] == "smp"
    args.cpus = int(args.pe[0][1]) if smp else int(resources.get("ncpus", 1))
    hosts = args.pe[0][1] if args.pe and not smp else "1"
    env = {"JOB_ID": "17", "NSLOTS": args.pe[0][1] if args.pe else "1", "NHOSTS": hosts}
    if sge:
        print('Your job 17 ("x") has been submitted')
        return args, env, "SGE_TASK_ID"
    print("17.head.pbsserver")  # pbs.pl knows servers of this name only
    return args, {"PBS_JOBID": "17.head.pbsserver", "NCPUS": str(args.cpus)}, "PBS_ARRAY_INDEX"


def run(args: argparse.Namespace, env: dict[str, str], variable: str) -> None:
    """Run all tasks."""
    if hasattr(os, "sched_setaffinity") and args.cpus:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cpus])
    env = {**{name: os.environ[name] for name in args.export.split(",")}, **env}
    first, last = map(int, re.split("[-:]", args.array)) if args.array else (0, 0)
    with open(args.o, "a") as log:
        for task in range(first, last + 1):
            number = {variable: str(task)} if args.array else {}
            subprocess.run(
                ["/bin/bash", args.script], env={**env, **number}, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )


def main() -> None:
    args, env, variable = (slurm if NAME == "sbatch" else qsub)(sys.argv[1:])
    with open(Path(sys.argv[0]).parent / "asked", "a") as asked:
        asked.write(f"{NAME} {' '.join(sys.argv[1:])}\n")
    sys.stdout.flush()
    if os.fork() == 0:
        os.setsid()
        run(args, env, variable)
        os._exit(0)


if __name__ == "__main__":
    main()
