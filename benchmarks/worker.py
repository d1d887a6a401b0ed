"""Sides of a benchmark in processes of their own, so that memory is each one's and turns can be taken."""

from __future__ import annotations

import json
import subprocess
import sys


class Worker:
    """A process that answers each line with one line of JSON."""

    def __init__(self, name: str, script: str, options: dict[str, object]) -> None:
        """Start it.

        Args:
            name: Of the side, ``--worker``.
            script: The benchmark.
            options: Its options; None: left out, True: without a value.
        """
        self.name = name
        command = [sys.executable, script, "--worker", name]
        for option, value in options.items():
            if value is not None:
                command += [f"--{option}", *([] if value is True else [str(value)])]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, what: str = "") -> dict[str, float]:
        """Send a line, wait for the answer.

        Raises:
            RuntimeError: If the process ended.
        """
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.name}: the process ended with status {self.process.wait()}")
        return json.loads(answer)

    def close(self) -> None:
        """End it."""
        self.process.stdin.close()
        self.process.wait()
