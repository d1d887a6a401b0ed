#!/usr/bin/env python3
"""Download an archive and unpack it; can be stopped and run again at any time.

What has arrived is kept in ARCHIVE.part and continued. The archive is checked before it is unpacked, and its folder
gets its name only when all of it is on the disk.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException, HTTPResponse
from pathlib import Path

BLOCK = 1 << 20  # bytes
TRIES = 5
TIMEOUT = 60  # seconds without a byte


class Progress:
    """How many bytes are done: a bar on a terminal, a line every ten seconds in a log."""

    def __init__(self, what: str, total: int | None, start: int = 0) -> None:
        self.what, self.total, self.done, self.said = what, total, start, time.monotonic()
        self.bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self.bar = tqdm(desc=what, total=total, initial=start, unit="B", unit_scale=True)

    def add(self, count: int) -> None:
        """Report ``count`` more bytes."""
        self.done += count
        if self.bar is not None:
            self.bar.update(count)
        elif time.monotonic() - self.said > 10:
            self.said = time.monotonic()
            log(f"{self.what}: {self.done / 1e6:.0f} of {self.total / 1e6 if self.total else 0:.0f} MB")

    def close(self) -> None:
        """End the bar's line."""
        if self.bar is not None:
            self.bar.close()


def log(message: str) -> None:
    """A line on stderr."""
    print(f"download: {message}", file=sys.stderr, flush=True)


def open_rest(url: str, have: int) -> tuple[HTTPResponse, int, int | None]:
    """Ask for what is missing.

    Returns:
        The response, the byte at which it starts (0 if the server can't continue), and the whole size if it is known.
    """
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    response = urllib.request.urlopen(request, timeout=TIMEOUT)
    length = response.headers.get("Content-Length")
    start = 0
    if response.status == 206:
        start = int(response.headers["Content-Range"].split()[1].split("-")[0])
        if start != have:
            raise ValueError(f"{url}: asked for the bytes from {have}, the server sends those from {start}")
    return response, start, start + int(length) if length is not None else None


def fetch_once(url: str, part: Path) -> None:
    """Get the rest of the file into ``part``; OSError or HTTPException if the connection ends early."""
    have = part.stat().st_size
    try:
        response, start, total = open_rest(url, have)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to send: the size decides whether it is whole
            return
        raise
    if have and not start:
        log(f"the server can't continue at byte {have}, starting again")
    if total is not None and shutil.disk_usage(part.parent).free < total - start:
        free = shutil.disk_usage(part.parent).free
        raise ValueError(f"{part.parent} has {free} bytes free, {total - start} more are needed for {url}")
    progress = Progress(part.name.removesuffix(".part"), total, start)
    with response, open(part, "r+b") as file:
        file.truncate(start)
        file.seek(start)
        while block := response.read(BLOCK):
            file.write(block)
            progress.add(len(block))
    progress.close()
    if total is not None and progress.done < total:
        raise ConnectionError(f"the connection ended after {progress.done} of {total} bytes")


def fetch(url: str, archive: Path, retry_wait: float) -> None:
    """Download to ``archive``, continuing what is there; ValueError if it can't be had.

    Args:
        url: Where it is.
        archive: Where it goes.
        retry_wait: Seconds before a second try; before each further one it is doubled.
    """
    archive.parent.mkdir(parents=True, exist_ok=True)
    part = archive.with_name(f"{archive.name}.part")
    with open(part, "ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another process is downloading {part}; wait until it has ended") from None
        for left in reversed(range(TRIES)):
            try:
                fetch_once(url, part)
                break
            except (OSError, HTTPException) as error:
                if isinstance(error, urllib.error.HTTPError) and error.code < 500:
                    raise ValueError(f"{url}: the server answered {error.code} {error.reason}") from None
                kept = f"{part.stat().st_size} bytes are kept in {part}"
                if not left:
                    raise ValueError(f"{url}: {error}; {kept}, run again to continue") from None
                log(f"{error}; {kept}, trying again")
                time.sleep(retry_wait * 2 ** (TRIES - 1 - left))
        os.replace(part, archive)


def verify(archive: Path, size: int | None, checksums: dict[str, str]) -> None:
    """Compare size and checksums.

    Args:
        archive: The file.
        size: Bytes; None isn't checked.
        checksums: Name of a hash -> wanted value; an empty one isn't checked.

    Raises:
        ValueError: If one differs; with both values and what to do. The file is left as it is.
    """
    found: dict[str, object] = {"size": archive.stat().st_size}
    wanted: dict[str, object] = {name: value.lower() for name, value in checksums.items() if value}
    for name in wanted:
        digest = hashlib.new(name)
        with open(archive, "rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
        found[name] = digest.hexdigest()
    if size is not None:
        wanted["size"] = size
    wrong = [f"{name} {found[name]}, {value} is wanted" for name, value in wanted.items() if found[name] != value]
    if wrong:
        raise ValueError(
            f"{archive} is not what was expected: {'; '.join(wrong)}. It was left there: delete it to download it "
            "again, or, if you trust it, give its values as options (an empty value isn't checked)"
        )


def members(archive: tarfile.TarFile, inside: Path) -> Iterator[tarfile.TarInfo]:
    """Files and folders of an archive; ValueError for one that would land outside, or is a link or a device."""
    for member in archive:
        target = (inside / member.name).resolve()
        if not target.is_relative_to(inside.resolve()) or not (member.isfile() or member.isdir()):
            raise ValueError(f"{archive.name}: refused to unpack '{member.name}'")
        yield member


def unpack(archive: Path, name: str) -> None:
    """Unpack the folder ``name`` of the archive beside it, all or nothing; ValueError if it can't be."""
    temporary = archive.parent / f".{name}.unpacking"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    progress = Progress(f"unpacking {archive.name}", archive.stat().st_size)
    try:
        # As a stream: with random access tarfile reads back and forth, which a compressed file can't do fast.
        with open(archive, "rb") as file, tarfile.open(fileobj=file, mode="r|*", name=str(archive)) as tar:
            for member in members(tar, temporary):
                target = temporary / member.name
                if member.isdir():
                    target.mkdir(parents=True, exist_ok=True)
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with open(target, "wb") as to:
                        shutil.copyfileobj(tar.extractfile(member), to, BLOCK)
                progress.add(file.tell() - progress.done)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"can't unpack {archive}: {error}") from None
    finally:
        progress.close()
    if not (temporary / name).is_dir():
        raise ValueError(f"{archive} has no folder {name} in it; what it has is in {temporary}")
    (temporary / name / ".complete").write_text(f"{archive.name}\n")
    (temporary / name).rename(archive.parent / name)
    shutil.rmtree(temporary)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="the archive, any compression that tarfile knows")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for the archive and what is in it")
    parser.add_argument("--folder", required=True, help="name of the folder in the archive")
    parser.add_argument("--size", type=lambda value: int(value) if value else None, help="bytes of the archive")
    parser.add_argument("--retry_wait", type=float, default=2.0, help="seconds before the second of 5 tries")
    parser.add_argument("--md5", default="", help="checksum of the archive")
    parser.add_argument("--sha256", default="", help="checksum of the archive")
    args = parser.parse_args()
    archive = args.output_dir / args.url.rsplit("/", 1)[-1]
    try:
        if (args.output_dir / args.folder).exists():
            log(f"{args.output_dir / args.folder} is there, nothing to do")
            return
        if not archive.exists():
            log(f"{args.url} -> {archive}")
            fetch(args.url, archive, args.retry_wait)
        verify(archive, args.size, {"md5": args.md5, "sha256": args.sha256})
        unpack(archive, args.folder)
    except (ValueError, OSError) as error:
        sys.exit(f"download: error: {error}")
    log(f"{args.output_dir / args.folder} is complete")


if __name__ == "__main__":
    main()
