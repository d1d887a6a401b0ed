#!/usr/bin/env python3
"""Stands for Kaldi's slurm.pl, queue.pl and pbs.pl, by the name that it is called by: submits a job and waits for it.

Like them it reads what options mean from --config (else conf/slurm.conf and so on, else lines of its own),
refuses an option that isn't described there, writes a script that goes to the work folder and sources ./path.sh, and
learns from the log how the job ended.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

NAME = Path(sys.argv[0]).name
#: Name -> configuration, what is understood without one, what asks for an array, the variable of a job's number.
QUEUES = {
    "slurm.pl": (
        "conf/slurm.conf",
        "command sbatch --export=PATH\noption num_threads=* --cpus-per-task $0\noption gpu=* --gres=gpu:$0",
        "--array {}-{}",
        "SLURM_ARRAY_TASK_ID",
    ),
    "queue.pl": ("conf/queue.conf", "command qsub -v PATH -cwd\noption gpu=*\n", "-t {}:{}", "SGE_TASK_ID"),
    "pbs.pl": ("conf/pbs.conf", "command qsub -v PATH\noption gpu=* -l ncpus=$0\n", "-J {}-{}", "PBS_ARRAY_INDEX"),
}


def die(message: str) -> NoReturn:
    sys.exit(f"{NAME}: {message}")


def read_words(words: list[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """Options by name, the array's range as (variable, first, last) or nothing, and the log with the command."""
    options: dict[str, str] = {}
    array: list[str] = []
    while words:
        found = re.fullmatch(r"(\w+)=(\d+)(?::(\d+))?", words[0])
        if words[0].startswith("--"):
            options[words[0][2:].replace("-", "_")] = words[1]
            words = words[2:]
        elif found and not array:
            array = [found[1], found[2], found[3] or found[2]]
            words = words[1:]
        else:
            break
    return options, array, words


def queue_options(text: str, source: str, options: dict[str, str]) -> tuple[str, str]:
    """The command that submits, and what the options become by the configuration."""
    command, exact, general = "", {}, {}
    for line in text.splitlines():
        line = re.sub(r"\s*#.*", "", line)
        if not line:
            continue
        if found := re.fullmatch(r"command (.+)", line):
            command = found[1]
        elif found := re.fullmatch(r"option ([^=]+)=\* (.+)", line):
            general[found[1]] = found[2]
        elif found := re.fullmatch(r"option ([^=]+)=(\S+)\s?(.*)", line):
            exact[found[1], found[2]] = found[3]
        elif found := re.fullmatch(r"default (\S+)=(\S+)", line):
            options.setdefault(found[1], found[2])
        else:
            die(f"unable to parse line '{line}' in config file ({source})")
    if not command:
        die(f"config file ({source}) does not contain the line 'command ...'")
    words = []
    for name, value in sorted(options.items(), key=lambda item: hash(item)):  # in no order, as Perl's hashes have none
        if (name, value) in exact:
            words.append(exact[name, value])
        elif name in general:
            words.append(general[name].replace("$0", value))
        elif name not in ("config", "max_jobs_run"):
            die(f"Command line option {name} not described in {source} (or value '{value}' not allowed)")
    return command, " ".join(words)


def quoted(word: str) -> str:
    """As Kaldi quotes: words without spaces not at all."""
    if re.fullmatch(r"\S+", word):
        return word
    return f"'{word}'" if '"' in word else f'"{word}"'


def main() -> None:
    default, built_in, array_option, variable = QUEUES[NAME]
    options, array, rest = read_words(sys.argv[1:])
    log, command = rest[0], " ".join(map(quoted, rest[1:]))
    source = options.get("config", default)
    if "config" in options and not Path(source).is_file():
        die(f"Could not open config file {source}")
    there = Path(source).is_file()
    text = Path(source).read_text() if there else built_in
    submit, words = queue_options(text, source if there else "default config file", options)
    logs = [Path(log)]
    if array:
        name, first, last = array
        logs = [Path(log.replace(name, str(job))) for job in range(int(first), int(last) + 1)]
        log, command = log.replace(name, f"${variable}"), command.replace(name, f"${{{variable}}}")
        words += " " + array_option.format(first, last)
    folder = logs[0].parent
    (folder / "q").mkdir(parents=True, exist_ok=True)
    script, said = (folder / "q" / f"{logs[0].stem}{suffix}" for suffix in (".sh", ".log"))
    done = folder / "q" / f"done.{os.getpid()}"
    end = f"{done}.${variable}" if array else done
    script.write_text(
        f"#!/bin/bash\ntrap 'touch {end}' EXIT\ncd {os.getcwd()}\n. ./path.sh\n"
        f"( echo '#' Started at `date`\n  echo -n '# '; cat <<EOF\n{command}\nEOF\n) >{log}\n"
        f" ( {command} ) &>>{log}\nret=$?\necho '#' Finished at `date` with status $ret >>{log}\nexit $[$ret ? 1 : 0]\n"
    )
    say = f"-o {said}" + (f" -e {said} --open-mode=append" if NAME == "slurm.pl" else "")
    line = f"{submit} {words} {say} {script.absolute()} >{said} 2>&1"
    if subprocess.run(["bash", "-c", line]).returncode != 0:
        die(f"error submitting jobs to queue\ncommand was {line}\n{said.read_text()}")
    ends = [Path(f"{done}.{job}") for job in range(int(array[1]), int(array[2]) + 1)] if array else [done]
    while not all(end.exists() for end in ends):
        time.sleep(0.05)
    for end in ends:
        end.unlink()
    failed = [path for path in logs if not path.exists() or "with status 0" not in path.read_text()[-200:]]
    if failed:
        die(f"{len(failed)} / {len(logs)} failed, log is in {failed[0]}")


if __name__ == "__main__":
    main()
