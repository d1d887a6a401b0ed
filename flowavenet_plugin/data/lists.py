"""Kaldi's file lists: a line for each utterance, its id first.

Nothing here ever runs a command: in Kaldi an entry may be a shell pipe, and such entries are refused.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from flowavenet_plugin.data.partial import atomic_open
from flowavenet_plugin.data.text import read_text


def read_scp(path: str | Path) -> dict[str, str]:
    """Read a two-column list (wav.scp, feats.scp, text, utt2num_frames, ...).

    Returns:
        Utterance id -> rest of the line, in the order of the file. Empty lines are skipped.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: On a line without value, an id that occurs twice, a value that is a shell pipe, or text that is not
            UTF-8. File, line and id are named.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such file list: {path}")
    entries: dict[str, str] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        utt, *rest = re.split(r"[ \t]+", line.strip(" \t\r"), maxsplit=1)
        if not utt:
            continue
        where = f"{path}:{number}: utterance {utt}"
        if not rest:
            raise ValueError(f"{where} has no value")
        value = rest[0]
        if value.startswith("|") or re.search(r"\|\s*(:\d+)?(\[.*\])?$", value):
            raise ValueError(f"{where}: '{value}' is a shell pipe; a file list doesn't run commands, save it as a file")
        if value == "[":
            raise ValueError(f"{where} is followed by '[': this is a text archive, not a list")
        if utt in entries:
            raise ValueError(f"{where} occurs twice: '{entries[utt]}' and '{value}'")
        entries[utt] = value
    return entries


def read_ids(path: str | Path) -> list[str]:
    """Read the first column of a list; there may be no other. Empty lines are skipped.

    Raises:
        OSError: If the file can't be read.
        ValueError: If an id occurs twice, with the line, or the text is not UTF-8.
    """
    found: dict[str, int] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        utt = re.split(r"[ \t]+", line.strip(" \t\r"), maxsplit=1)[0]
        if utt in found:
            raise ValueError(f"{path}:{number}: utterance {utt} occurs twice, in line {found[utt]} as well")
        if utt:
            found[utt] = number
    return list(found)


def write_scp(path: str | Path, mapping: Mapping[str, object]) -> None:
    """Write ``id value`` lines, all or nothing."""
    with atomic_open(path) as file:
        file.write("".join(f"{utt} {value}\n" for utt, value in mapping.items()).encode("utf-8"))


def check_same_ids(a: Collection[str], b: Collection[str], name_a: str, name_b: str) -> None:
    """Compare the ids of two lists.

    Raises:
        ValueError: If they differ; with the counts and the first ids that each side lacks.
    """
    in_b, in_a = set(b), set(a)
    only_a = [utt for utt in a if utt not in in_b]
    only_b = [utt for utt in b if utt not in in_a]
    if only_a or only_b:
        parts = [f"{name_a} has {len(a)} utterances, {name_b} has {len(b)}"]
        for only, name in ((only_a, name_a), (only_b, name_b)):
            if only:
                more = ", ..." if len(only) > 5 else ""
                parts.append(f"{len(only)} only in {name}: {', '.join(only[:5])}{more}")
        raise ValueError("; ".join(parts))


def is_file(path: str | Path) -> bool:
    """Whether there is such a file; of a name that is too long, as in damaged lists, there is none.

    Raises:
        OSError: If that can't be told.
    """
    try:
        return Path(path).is_file()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise


def find_listed(name: str, scp: str | Path, utt: str) -> Path | None:
    """Find a file that a list names, relative to the current folder (as in Kaldi), the list's, or one above that.

    Args:
        name: The file, as the list has it.
        scp: The list.
        utt: Utterance id, for the message.

    Returns:
        Its path; None: there is none.

    Raises:
        ValueError: If one is there from the current folder, and another one from the list's.
    """
    here, folder = Path(name), Path(scp).absolute().parent
    beside = next((base / name for base in (folder, *folder.parents) if is_file(base / name)), None)
    if not is_file(here):
        return beside
    if beside is not None and not beside.samefile(here):
        raise ValueError(
            f"{utt}: '{name}' in {scp} is {here.absolute()} from the current folder, but {beside} from the list's: "
            "which is meant can't be told; write whole paths"
        )
    return here
