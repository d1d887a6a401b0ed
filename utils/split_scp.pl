#!/usr/bin/env python3
"""Split a list into parts of nearly equal size, in order: no part differs from another by more than one line.

    split_scp.pl in.scp out.1.scp out.2.scp ...       into as many parts as files are given
    split_scp.pl -j 4 0 in.scp [out.scp]              only part 0 of 4, to the file or to the screen

A Python program under the name and with the command line of Kaldi's split_scp.pl, without its --utt2spk. More parts
than lines is an error, since an empty list makes the job that reads it fail later and less clearly.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn


def die(message: str) -> NoReturn:
    print(f"split_scp.pl: {message}", file=sys.stderr)
    sys.exit(1)


def read_lines(name: str) -> list[bytes]:
    """Lines of the file, each with its line end; '-' is standard input."""
    try:
        content = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except OSError as error:
        die(f"cannot read {name}: {error}")
    if content and not content.endswith(b"\n"):
        content += b"\n"
    return content.splitlines(keepends=True)  # of bytes: at line ends alone, not at Unicode's other separators


def part(lines: list[bytes], parts: int, index: int) -> list[bytes]:
    """Lines of part ``index`` (from 0) of ``parts``."""
    return lines[index * len(lines) // parts : (index + 1) * len(lines) // parts]


def write(name: str, lines: list[bytes]) -> None:
    """Write the file as a whole or not at all."""
    temporary = Path(f"{name}.tmp{os.getpid()}")
    try:
        temporary.write_bytes(b"".join(lines))
        os.replace(temporary, name)
    except OSError as error:
        die(f"cannot write {name}: {error}")


def check_size(name: str, lines: list[bytes], parts: int) -> None:
    if len(lines) < parts:
        die(f"{name} has {len(lines)} lines, too few for {parts} parts: reduce the number of jobs")


def main(words: list[str]) -> None:
    if words[:1] == ["-j"] and len(words) in (4, 5) and words[1].isdigit() and words[2].isdigit():
        parts, index, name = int(words[1]), int(words[2]), words[3]
        if not index < parts:
            die(f"part {index} does not exist: with {parts} parts the last is {parts - 1}")
        lines = read_lines(name)
        check_size(name, lines, parts)
        if len(words) == 5:
            write(words[4], part(lines, parts, index))
        else:
            sys.stdout.buffer.writelines(part(lines, parts, index))
        return
    if len(words) < 2 or (words[0].startswith("-") and words[0] != "-"):
        die("usage: split_scp.pl in.scp out.1.scp out.2.scp ... | split_scp.pl -j parts index in.scp [out.scp]")
    name, outputs = words[0], words[1:]
    lines = read_lines(name)
    check_size(name, lines, len(outputs))
    for index, output in enumerate(outputs):
        write(output, part(lines, len(outputs), index))


if __name__ == "__main__":
    main(sys.argv[1:])
