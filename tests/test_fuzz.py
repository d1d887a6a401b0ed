"""Whatever is damaged, a reader gives a result or one clear error that names the file: no traceback, no code is run.

``FLOWAVENET_FUZZ`` is the number of damaged files in all (``make fuzz``: 10,000). Each has a name, ``kind:number``,
that says by itself what is damaged and how; ``FLOWAVENET_FUZZ_ONLY="npy:17"`` does that one again.
"""

from __future__ import annotations

import io
import os
import random
import resource
import traceback
import zipfile
from pathlib import Path

import pytest

import fuzz_cases
from fuzz_cases import MAKERS, MARK, Case, zipped
from fuzz_mutations import mutate
from fuzz_readers import clear_errors

COUNT = int(os.environ.get("FLOWAVENET_FUZZ", 400))
ONLY = os.environ.get("FLOWAVENET_FUZZ_ONLY", "")
#: Bytes that reading damaged files may take, beside what the process had; headers promise more.
MOST_MEMORY = 2**30


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty folder."""
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def kinds(place: Path) -> dict[str, list[Case]]:
    """Return all kinds of files, written into the folder."""
    return fuzz_cases.make_all(place)


def damage(case: Case, whole: bytes, number: int) -> tuple[bytes, str]:
    """Return damaged content of a file, and what was done; the same for the same number."""
    rng = random.Random(f"{case.name}:{number}")
    if not case.member:
        data, done = mutate(rng, whole, case.text)
        return data, "; ".join(done)
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content[case.member], done = mutate(rng, content[case.member], case.text)
    return zipped(content), f"{case.member}: {'; '.join(done)}"


def outcome(case: Case, path: Path) -> str:
    """Read a file; return what is wrong with how it is refused, or nothing."""
    try:
        with clear_errors(path.name, member=case.member.removesuffix(".npy")):
            case.read(path)
    except Exception as error:
        frames = traceback.extract_tb((error.__cause__ or error).__traceback__)
        own = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames]
        return f"{type(error).__name__}: {str(error)[:400]} ({' '.join(own[-6:])})"
    return f"{MARK} was made" if MARK.exists() else ""


def peak_memory() -> int:
    """Return the most memory that this process has had so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def numbers(case: Case, count: int) -> list[int]:
    """Return which damages of a kind are done, of ``count``."""
    name, _, number = ONLY.rpartition(":")
    return list(range(count)) if not ONLY else [int(number)] * (case.name == name)


def read_damaged(case: Case, path: Path, count: int) -> list[str]:
    """Damage a file ``count`` times and read it; return what went wrong, and how to do it again."""
    whole, memory, failed = path.read_bytes(), peak_memory(), []
    for number in numbers(case, count):
        data, done = damage(case, whole, number)
        path.write_bytes(data)
        wrong = outcome(case, path)
        if not wrong and peak_memory() - memory > MOST_MEMORY:
            wrong = f"{(peak_memory() - memory) / 2**20:.0f} MiB of memory"
        memory = max(memory, peak_memory() - MOST_MEMORY)
        if wrong:
            failed.append(f'FLOWAVENET_FUZZ_ONLY="{case.name}:{number}" ({done}): {wrong}')
    path.write_bytes(whole)
    return failed


@pytest.mark.parametrize("group", MAKERS)
def test_damaged_files(place: Path, kinds: dict[str, list[Case]], group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    each, failed = -(-COUNT // sum(map(len, kinds.values()))), []
    for case in kinds[group]:
        path = place / case.path
        monkeypatch.chdir(path.parent)  # training takes names in lists from the current folder
        folders = sorted(Path().glob("*/"))
        failed += read_damaged(case, path, each)
        assert sorted(Path().glob("*/")) == folders, f"{case.name}: folders were made"
    assert not failed, f"{len(failed)} files:\n" + "\n".join(failed[:50])


@pytest.mark.parametrize("group", [name for name in MAKERS if name not in ("pickles",)])
def test_whole_files_are_read(
    place: Path, kinds: dict[str, list[Case]], group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for case in kinds[group]:
        monkeypatch.chdir((place / case.path).parent)
        if not case.name.startswith("code"):
            case.read(place / case.path)


def test_a_damage_can_be_done_again(place: Path, kinds: dict[str, list[Case]]) -> None:
    for case in (case for cases in kinds.values() for case in cases):
        whole = (place / case.path).read_bytes()
        assert damage(case, whole, 3) == damage(case, whole, 3)
