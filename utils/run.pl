#!/usr/bin/env python3
"""Run a command, or an array of them in parallel, on this machine, each with its own log file.

    run.pl [options] [JOB=1:4] exp/log/work.JOB.log command --index JOB ...

A Python program under the name and with the command line of Kaldi's run.pl, which scripts and espnet2.bin.launch
know; Python's standard library is all it needs. JOB is replaced in the log's name and in the command. Words such as
'|' or '>' reach the shell as they are, all others are quoted. Called as stdout.pl it copies the logs to the screen.

Options (those that only a queue needs, such as --mem, are accepted with their value and have no effect):
    --max-jobs-run N   jobs that run at the same time; else one per core (divided by --num_threads)
    --num_threads N    threads that each job uses
    --gpu N            devices that each job uses: an array is spread over the visible devices

Exit status: 0 if every job succeeded, 1 if any failed (its log is named), 128 + n if signal n stopped it: the jobs
are then stopped, too.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NoReturn

NAME = Path(sys.argv[0]).name
JOB_SPEC = re.compile(r"^([A-Za-z_]\w*)=(\d+)(?::(\d+))?$")
SHELL_WORD = re.compile(r"^(\|\|?|&&|&|;|\d*>&\d|\d*(?:<|>>|>))(.*)$", re.DOTALL)
#: Seconds between the request to stop and the kill: a training finishes its iteration and saves.
KILL_AFTER = float(os.environ.get("KILL_AFTER", 60))


@dataclass
class Options:
    """What the command line asks for."""

    max_jobs: int = 0
    num_threads: int = 1
    gpu: int = 0
    variable: str = "JOB"
    indices: list[int] = field(default_factory=list)
    log: str = ""
    command: list[str] = field(default_factory=list)


@dataclass
class Job:
    """A running command."""

    index: int
    log: Path
    process: subprocess.Popen[bytes]
    stream: IO[str]
    started: float
    device: int


def die(message: str) -> NoReturn:
    print(f"{NAME}: {message}", file=sys.stderr)
    sys.exit(1)


def positive(option: str, value: str, least: int) -> int:
    """The option's value as a whole number of at least ``least``; stops the program otherwise."""
    if not value.isdigit() or int(value) < least:
        die(f"{option} takes a whole number of at least {least}, not {value!r}")
    return int(value)


def parse(argv: list[str]) -> Options:
    """Read options and the job range, in any order, then the log and the command."""
    options = Options()
    words = list(argv)
    while words:
        spec = JOB_SPEC.match(words[0])
        if words[0].startswith("-"):
            option = words.pop(0)
            if option == "-V":
                continue
            if not words:
                die(f"option {option} needs a value")
            value = words.pop(0)
            if option in ("--max-jobs-run", "--max_jobs_run", "-tc"):
                options.max_jobs = positive(option, value, 1)
            elif option in ("--num_threads", "--num-threads"):
                options.num_threads = positive(option, value, 1)
            elif option == "--gpu":
                options.gpu = positive(option, value, 0)
        elif spec and not options.indices:
            words.pop(0)
            options.variable, first = spec[1], int(spec[2])
            options.indices = list(range(first, int(spec[3] or first) + 1))
            if first < 1 or not options.indices:
                die(f"job range {spec[0]} is empty or starts below 1")
        else:
            break
    if len(words) < 2:
        die(f"usage: {NAME} [options] [JOB=1:n] log command ...")
    options.log, options.command = words[0], words[1:]
    if len(options.indices) > 1 and options.variable not in options.log:
        die(f"{len(options.indices)} jobs would share one log, {options.log}: its name must contain {options.variable}")
    return options


def shell_line(command: list[str]) -> str:
    """One line for the shell: pipes and redirections as they are, every other word quoted."""
    words = []
    for word in command:
        found = SHELL_WORD.match(word)
        if found and (not found[2] or found[1][-1] in "<>"):
            words.append(found[1] + (shlex.quote(found[2]) if found[2] else ""))
        else:
            words.append(shlex.quote(word))
    return " ".join(words)


def visible_devices() -> list[str]:
    """Ids of the CUDA devices that jobs may use."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [device for device in chosen.split(",") if device]
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(i) for i in range(sum(line.startswith("GPU ") for line in listing.splitlines()))]


def usable_cores() -> int:
    """Cores that jobs may use: those of this process, or fewer where it is itself the job of a queue that says so."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("NSLOTS") or ""
    return max(1, min(cores, int(given))) if given.isdigit() else cores


class Runner:
    """Runs the jobs of one call and counts those that fail."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.waiting = list(options.indices) or [0]
        self.running: list[Job] = []
        self.failed: list[Path] = []
        self.limit = options.max_jobs or max(1, usable_cores() // options.num_threads)
        # A single job sees all devices, as its launcher expects; the jobs of an array get their own.
        devices = visible_devices() if options.gpu and len(self.waiting) > 1 else []
        self.devices = [devices[i : i + options.gpu] for i in range(0, len(devices), max(1, options.gpu))]
        self.devices = [group for group in self.devices if len(group) == options.gpu]
        if self.devices and not options.max_jobs:
            self.limit = min(self.limit, len(self.devices))

    def start(self, index: int) -> None:
        """Open the log and start one job in its own process group."""

        def fill_in(word: str) -> str:
            return word.replace(self.options.variable, str(index)) if self.options.indices else word

        log = Path(fill_in(self.options.log))
        line = shell_line([fill_in(word) for word in self.options.command])
        environment = dict(os.environ)
        device = -1
        if self.devices:
            load = [sum(job.device == i for job in self.running) for i in range(len(self.devices))]
            device = load.index(min(load))
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self.devices[device])
        log.parent.mkdir(parents=True, exist_ok=True)
        stream = log.open("w", encoding="utf-8")
        stream.write(f"# {line}\n# Started at {time.ctime()}\n#\n")
        stream.flush()
        if NAME == "stdout.pl":
            line = f"{{ {line}\n}} 2>&1 | tee -a {shlex.quote(str(log))}"
        process = subprocess.Popen(
            ["bash", "-c", f"set -o pipefail\n{line}"],
            stdin=subprocess.DEVNULL,
            stdout=None if NAME == "stdout.pl" else stream,
            stderr=None if NAME == "stdout.pl" else subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        self.running.append(Job(index, log, process, stream, time.time(), device))

    def finish(self, job: Job) -> None:
        """Write the last lines of an ended job's log and note whether it failed."""
        code = job.process.returncode if job.process.returncode >= 0 else 128 - job.process.returncode
        job.stream.seek(0, os.SEEK_END)
        job.stream.write(f"# Accounting: time={time.time() - job.started:.0f} threads={self.options.num_threads}\n")
        job.stream.write(f"# Ended (code {code}) at {time.ctime()}, elapsed time {time.time() - job.started:.0f} s\n")
        job.stream.close()
        if code != 0:
            self.failed.append(job.log)

    def step(self) -> None:
        """Start what may start, then collect what has ended."""
        while self.waiting and len(self.running) < self.limit:
            self.start(self.waiting.pop(0))
        ended = [job for job in self.running if job.process.poll() is not None]
        self.running = [job for job in self.running if job not in ended]
        for job in ended:
            self.finish(job)

    def stop(self) -> None:
        """Stop every running job and whatever it started."""
        for kind, patience in ((signal.SIGTERM, KILL_AFTER), (signal.SIGKILL, KILL_AFTER)):
            for job in self.running:
                try:
                    os.killpg(job.process.pid, kind)
                except ProcessLookupError:
                    pass
            deadline = time.time() + patience
            while any(job.process.poll() is None for job in self.running) and time.time() < deadline:
                time.sleep(0.02)
        for job in self.running:
            self.finish(job)


def main() -> int:
    options = parse(sys.argv[1:])
    runner = Runner(options)

    def interrupted(number: int, _frame: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        with contextlib.suppress(OSError):  # whoever reads this may be gone
            print(f"{NAME}: stopped by {signal.Signals(number).name}, stopping the jobs", file=sys.stderr, flush=True)
        runner.stop()
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, interrupted)
    pause = 0.01
    while runner.waiting or runner.running:
        runner.step()
        time.sleep(pause)
        pause = min(0.2, pause * 1.2)
    if runner.failed:
        total = len(options.indices) or 1
        names = ", ".join(str(log) for log in sorted(runner.failed)[:5])
        print(f"{NAME}: {len(runner.failed)} / {total} failed, log is in {names}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
