"""The table of results, in the form of ESPnet's RESULTS."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_FORM = """\
# RESULTS

## Environments

{environments}

## {title}

{table}

Mean over the utterances, ± half the width of its 95% confidence interval.
{notes}

<details>
<summary>The command</summary>

```sh
{command}
```

</details>
"""


def environments() -> dict[str, str]:
    """Return what the results depend on: date, versions and, inside a git repository, the commit."""
    found = {
        "date": time.strftime("%a %b %d %H:%M:%S %Z %Y"),
        "python version": " ".join(sys.version.split()),
        "espnet version": f"espnet {_version_of('espnet')}",
        "pytorch version": f"pytorch {_version_of('torch')}",
    }
    if _git("ls-files", Path(__file__).name):  # an installed copy may lie in somebody else's repository
        found["Git hash"] = _git("rev-parse", "HEAD")
        found["Commit date"] = _git("log", "-1", "--format=%cd")
    return found


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a Markdown table that reads as plain text too.

    Columns are as wide as their headings, not as their cells: tables of several sets have the same heading, and joined
    they are one.
    """
    padded = [[cell.ljust(len(head)) for cell, head in zip(row, header, strict=True)] for row in [header, *rows]]
    lines = [f"| {' | '.join(cells)} |" for cells in padded]
    lines.insert(1, "|" + "|".join("-" * (len(head) + 2) for head in header) + "|")
    return "\n".join(lines)


def results_markdown(
    title: str, table: str, notes: str, command: Sequence[str], environment: Mapping[str, str] | None = None
) -> str:
    """Return the whole results.md.

    Args:
        title: Heading above the table, for instance the experiment's name.
        table: From :func:`markdown_table`.
        notes: What the columns mean, one paragraph.
        command: Program and arguments that gave the results.
        environment: From :func:`environments`, which is the default.
    """
    environment = environments() if environment is None else environment
    lines = "\n".join(f"- {name}: `{value}`" for name, value in environment.items())
    return _FORM.format(environments=lines, title=title, table=table, notes=notes, command=shlex.join(command))


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _git(*arguments: str) -> str:
    """Output of git on the repository that holds this file, empty if there is none."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
