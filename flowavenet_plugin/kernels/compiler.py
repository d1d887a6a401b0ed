"""Makes a library of csrc/ and keeps it for other processes.

It lies in ``$FLOWAVENET_CACHE``, by default ``~/.cache/flowavenet_plugin``, under a name that says for which processor,
compiler, C library and source it is. Where nothing can be kept, each process makes its own.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from flowavenet_plugin.kernels import choices

FOLDER = Path(__file__).with_name("csrc")
SOURCES = tuple(sorted(FOLDER.glob("*.c")))
#: Without -ffast-math, which would change the arithmetic of the whole process.
FLAGS = ("-O3", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-ffp-contract=fast")
FLAGS += ("-fopenmp", "-fPIC", "-shared")
#: Names the folder that keeps it.
CACHE = "FLOWAVENET_CACHE"
#: How long synthesis takes without it, see docs/performance.md.
COST = "1.3 (float32) to 1.5 times (bfloat16)"


def load() -> ctypes.CDLL:
    """Return the library, compiled unless it was before.

    Raises:
        OSError: If there is no compiler, or what it makes can't be loaded.
        subprocess.CalledProcessError: If the compiler fails.
    """
    command = [*_compiler(), f"-march={choices.march()}", *FLAGS]
    name = f"kernels-{_key(command)}.so"
    try:
        kept = _folder() / name
        if kept.exists():
            return ctypes.CDLL(str(kept))
    except OSError as error:  # damaged, or made where there is another C library
        logging.debug(f"The kept library can't be used: {reason(error)}")
    with tempfile.TemporaryDirectory(prefix="flowavenet-") as work:
        made = Path(work) / name
        subprocess.run([*command, *map(str, SOURCES), "-o", str(made), "-lm"], capture_output=True, check=True)
        try:
            return ctypes.CDLL(str(_keep(made, _folder())))
        except OSError as error:
            library = ctypes.CDLL(str(made))  # stays, without its file
            logging.warning(
                f"Compiled kernels can't be kept: {reason(error)}. Each process compiles its own, which takes some "
                f"seconds; {CACHE} names another folder."
            )
            return library


def reason(error: Exception) -> str:
    """Say why there is no library."""
    if isinstance(error, subprocess.CalledProcessError):
        said = (error.stderr or b"").decode(errors="replace").strip().splitlines()
        first = next((line for line in said if "error" in line), said[0] if said else "")
        return f"'{error.cmd[0]}' failed with status {error.returncode}{': ' * bool(first)}{first}"
    return str(error)


def _compiler() -> list[str]:
    return os.environ.get("CC", "").split() or ["cc"]


def _folder() -> Path:
    try:
        return Path(os.environ.get(CACHE) or Path.home() / ".cache/flowavenet_plugin")
    except RuntimeError as error:
        raise OSError("the user has no home folder") from error


def _key(command: list[str]) -> str:
    """Return a name for all that the library depends on."""
    version = subprocess.run([*_compiler(), "--version"], capture_output=True, check=True).stdout
    sources = [path.read_bytes() for path in sorted(FOLDER.glob("*.[ch]"))]
    known = [*sources, version, " ".join((*command, *platform.libc_ver())).encode(), _processor()]
    return hashlib.sha256(b"|".join(known)).hexdigest()[:16]


def _keep(made: Path, folder: Path) -> Path:
    """Put a file into a folder, whole at any time: other processes may do the same."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        copy = shutil.copy(made, work)
        return Path(copy).replace(folder / made.name)


def _processor() -> bytes:
    """Say what -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
        return b"".join(sorted({line for line in lines if line.startswith((b"flags", b"model", b"Features"))}))
    except OSError:
        return platform.processor().encode()
