"""Damage as disks, editors and copies that break off leave it, and numbers that are far too large."""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable

#: What a number in a text may become.
NUMBERS = ["0", "-1", "1", "7", "65536", "999999999", "4294967295", "9" * 30, "1e400", "-inf", "nan", "0.5", "3" * 5000]
#: What stands in a place of a text that had something else: all that means something to a reader of lists or YAML.
LETTERS = [*" \t\r\n[](){}:;,#'\"|!&*-%@`~<>?.\0", "\xe4", "\u2028", "\ufeff", ": ", "- ", "\n\n", "!!binary ", "*id "]
HUGE = [-1, 0, 1, 2**15, 2**24, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]
#: Bytes from the start within which headers lie.
HEADER = 160


def mutate(rng: random.Random, data: bytes, text: bool) -> tuple[bytes, list[str]]:
    """Damage a file's content in one to three places.

    Args:
        rng: Decides how and where.
        data: The content.
        text: Whether it is text, of which numbers and letters can be replaced.

    Returns:
        The damaged content, and what was done to it.
    """
    done = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        change = rng.choice(TEXT if text else BINARY)
        data, what = change(rng, data)
        done.append(f"{change.__name__} {what}")
    return data, done


def _place(rng: random.Random, data: bytes) -> int:
    """Return a byte's place; that of a header half of the time, or of what stands at the end, as in zip files."""
    reach = min(len(data), HEADER) if rng.random() < 0.5 else len(data)
    place = rng.randrange(max(reach, 1))
    return len(data) - 1 - place if rng.random() < 0.2 and data else place


def flip(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """Flip one to eight bits."""
    spoilt, places = bytearray(data), []
    for _ in range(rng.randint(1, 8) if data else 0):
        place, bit = _place(rng, data), rng.randrange(8)
        spoilt[place] ^= 1 << bit
        places.append(f"{place}.{bit}")
    return bytes(spoilt), f"bits {' '.join(places)}"


def cut(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """Leave out the end, or something in the middle."""
    first = _place(rng, data)
    last = len(data) if rng.random() < 0.5 else min(first + rng.randint(1, 64), len(data))
    return data[:first] + data[last:], f"{first} to {last}"


def insert(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """Put other bytes in between."""
    place, more = _place(rng, data), bytes(rng.randrange(256) for _ in range(rng.randint(1, 32)))
    return data[:place] + more + data[place:], f"{more!r} at {place}"


def repeat(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """Write a block several times."""
    first, times = _place(rng, data), rng.choice([1, 2, 50])
    block = data[first : first + rng.randint(1, 128)]
    return data[:first] + block * times + data[first:], f"{len(block)} bytes from {first}, {times} times more"


def swap(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """Swap two blocks that follow each other."""
    first = _place(rng, data)
    size = rng.randint(1, 64)
    one, two = data[first : first + size], data[first + size : first + 2 * size]
    return data[:first] + two + one + data[first + 2 * size :], f"{size} bytes at {first} with the next"


def enlarge(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """Write a number, mostly a huge one, over what is there."""
    place, kind, value = _place(rng, data), rng.choice("BHIQ"), rng.choice(HUGE)
    order, width = rng.choice("<>"), struct.calcsize(kind)
    number = struct.pack(f"{order}{kind}", value % 2 ** (8 * width))
    return data[:place] + number + data[place + width :], f"{order}{kind} {value} at {place}"


def renumber(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """Replace a number that stands there in digits."""
    found = list(re.finditer(rb"\d+", data))
    if not found:
        return flip(rng, data)
    match, value = rng.choice(found), rng.choice(NUMBERS)
    return data[: match.start()] + value.encode() + data[match.end() :], f"{match[0]!r} at {match.start()} by {value}"


def reletter(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """Replace a letter by one that means something."""
    place, letter = _place(rng, data), rng.choice(LETTERS)
    return data[:place] + letter.encode() + data[place + 1 :], f"{letter!r} at {place}"


def reword(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """Replace a word by another one of the file."""
    found = list(re.finditer(rb"\w+", data))
    if not found:
        return flip(rng, data)
    match, other = rng.choice(found), rng.choice(found)[0]
    return data[: match.start()] + other + data[match.end() :], f"{match[0]!r} at {match.start()} by {other!r}"


Change = Callable[[random.Random, bytes], tuple[bytes, str]]
BINARY: list[Change] = [flip, flip, cut, insert, repeat, swap, enlarge, enlarge, renumber]
TEXT: list[Change] = [flip, cut, insert, repeat, swap, renumber, renumber, reletter, reletter, reword]
