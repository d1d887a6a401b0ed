"""How long OpenMP's threads spin while they wait for each other: as long as they do, unless others need the processor.

On a free machine a thread that spins goes on at once. Beside other work the one that it waits for has no core
meanwhile, and spinning keeps it from getting one. Figures: docs/performance.md, "Beside other work".
"""

from __future__ import annotations

import time
from collections.abc import MutableMapping
from pathlib import Path

#: Turns that a thread spins before it sleeps, beside other work: some microseconds.
TURNS = 300
#: Share of the processors' time that other work takes, from which it counts; seconds that this is watched for.
SHARE, WATCHED = 0.2, 0.1
#: What decides already, if it is there.
OWN = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def choose_waiting(environment: MutableMapping[str, str], stat: Path = Path("/proc/stat")) -> None:
    """Set how long threads spin; OpenMP's library reads it once, when torch is imported.

    Args:
        environment: Of this process.
        stat: What the system counts of its processors' time; where there is none, nothing is set.
    """
    if any(name in environment for name in OWN) or environment.get("OMP_NUM_THREADS") == "1" or not stat.exists():
        return
    before = _times(stat)
    time.sleep(WATCHED)
    spent = [after - start for start, after in zip(before, _times(stat), strict=True)]
    if sum(spent) and 1 - (spent[3] + spent[4]) / sum(spent) > SHARE:  # all but idle and waiting for disks
        environment["GOMP_SPINCOUNT"] = str(TURNS)


def _times(stat: Path) -> list[int]:
    """Return the time of all processors by kinds: user, nice, system, idle, waiting for disks, ..."""
    return [int(word) for word in stat.read_text().split("\n", 1)[0].split()[1:]]
