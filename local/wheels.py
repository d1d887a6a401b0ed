"""Check that every pin of requirements.txt has a wheel for every Python that setup.py allows. Asks the package index.

    local/check.sh wheels

Prints each pin without one; the status is 1 unless these are the two that requirements.txt names as source packages:
Distance, which is plain Python, and pesq, which the environment can do without.
"""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parent.parent
FROM_SOURCE = {"Distance", "pesq"}
# What pip of a system with glibc 2.28 (Debian 10, RHEL 8) or later takes.
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1)] + ["manylinux2014_x86_64", "linux_x86_64"]


def pythons() -> list[str]:
    """Return the versions of Python that setup.py allows, as 3.10."""
    text = re.search(r'python_requires="(.+)"', (ROOT / "setup.py").read_text("utf-8"))
    return [f"3.{minor}" for minor in range(30) if text and f"3.{minor}" in SpecifierSet(text[1])]


def pins(python: str) -> list[Requirement]:
    """Return the requirements of one version of Python on Linux."""
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    place = {"python_version": python, "python_full_version": f"{python}.0", "platform_system": "Linux"}
    return [pin for pin in found if pin.marker is None or pin.marker.evaluate(place)]


def has_wheel(pin: Requirement, python: str) -> bool:
    """Ask pip what it would install; a wheel's own statement of Python versions counts."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", "--only-binary=:all:"]
    command += ["--ignore-installed", "--target", "unused", "--python-version", python, "--implementation", "cp"]
    command += [word for platform in PLATFORMS for word in ("--platform", platform)]
    return subprocess.run([*command, f"{pin.name}{pin.specifier}"], capture_output=True).returncode == 0


def main() -> int:
    """Ask for all pins, a few at a time."""
    asked = [(pin, python) for python in pythons() for pin in pins(python)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(has_wheel, *zip(*asked, strict=True)))
    lacking = [(pin, python) for (pin, python), there in zip(asked, found, strict=True) if not there]
    for pin, python in lacking:
        print(f"no wheel for Python {python}: {pin.name}{pin.specifier}")
    wrong = [pin.name for pin, _ in lacking if pin.name not in FROM_SOURCE]
    print(f"{len(asked)} pins asked for, of Python {', '.join(pythons())}: {len(wrong)} without a wheel that need one")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
