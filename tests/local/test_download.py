"""Downloading and unpacking a corpus, from a server on this machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from archive_server import Server, pack
from local_scripts import lists, make_corpus, run, sizes


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of an archive of six recordings."""
    served = Server(pack(make_corpus(tmp_path / "made/LJSpeech-1.1")))
    yield served
    served.http.shutdown()
    served.http.server_close()


def checks(server: Server, **values: str) -> tuple[object, ...]:
    """Options with the archive's own values, or with others."""
    found = {"size": len(server.content), "md5": hashlib.md5(server.content).hexdigest()}
    found |= {"sha256": hashlib.sha256(server.content).hexdigest(), **values}
    return "--url", server.url, *(word for name, value in found.items() for word in (f"--{name}", value))


def test_download(tmp_path: Path, server: Server) -> None:
    status, message = run(tmp_path, *checks(server), *sizes(), ljspeech="downloads")
    assert status == 0, message
    assert lists(tmp_path)["dev/wav.scp"] == "LJ001-0003 downloads/LJSpeech-1.1/wavs/LJ001-0003.wav\n"
    assert "downloads/LJSpeech-1.1 is complete" in message
    unpacked, made = tmp_path / "downloads/LJSpeech-1.1", tmp_path / "made/LJSpeech-1.1"
    for path in made.rglob("*.*"):
        assert (unpacked / path.relative_to(made)).read_bytes() == path.read_bytes()
    assert sorted(os.listdir(tmp_path / "downloads")) == ["LJSpeech-1.1", "LJSpeech-1.1.tar.bz2"]
    assert (unpacked / ".complete").exists()
    assert run(tmp_path, *checks(server), *sizes())[0] == 0
    assert len(server.asked) == 1


def test_download_only(tmp_path: Path, server: Server) -> None:
    status, message = run(tmp_path, *checks(server), "--stage", -1, "--stop_stage", -1, "--download_dir", "corpora")
    assert status == 0 and "the corpus is at corpora/LJSpeech-1.1" in message
    assert (tmp_path / "corpora/LJSpeech-1.1/metadata.csv").exists() and not (tmp_path / "data").exists()


def part_of(tmp_path: Path, content: bytes) -> Path:
    """What an earlier download left."""
    (tmp_path / "downloads").mkdir()
    part = tmp_path / "downloads/LJSpeech-1.1.tar.bz2.part"
    part.write_bytes(content)
    return part


def test_download_continues(tmp_path: Path, server: Server) -> None:
    part_of(tmp_path, server.content[:1000])
    assert run(tmp_path, *checks(server), *sizes())[0] == 0
    assert server.asked == ["bytes=1000-"]


def test_all_of_it_was_there(tmp_path: Path, server: Server) -> None:
    """Stopped between the last byte and the renaming."""
    part_of(tmp_path, server.content)
    assert run(tmp_path, *checks(server), *sizes())[0] == 0


def test_server_that_cannot_continue(tmp_path: Path, server: Server) -> None:
    server.ranges = False
    part_of(tmp_path, b"something else" * 100)
    status, message = run(tmp_path, *checks(server), *sizes())
    assert status == 0 and "the server can't continue at byte 1400, starting again" in message


def download(tmp_path: Path, server: Server, *options: object) -> tuple[int, str]:
    fixed = ("--url", server.url, "--output_dir", "downloads", "--folder", "LJSpeech-1.1", "--retry_wait", 0)
    return run(tmp_path, *fixed, *options, script="download.py")


def test_broken_connection(tmp_path: Path, server: Server) -> None:
    server.cut = len(server.content) // 3 + 1
    status, message = download(tmp_path, server)
    assert status == 0 and len(server.asked) == 3
    assert f"the connection ended after {server.cut} of {len(server.content)} bytes" in message


def test_connection_that_stays_broken(tmp_path: Path, server: Server) -> None:
    server.cut = 100
    status, message = download(tmp_path, server)
    assert status == 1 and len(server.asked) == 5
    assert "500 bytes are kept in downloads/LJSpeech-1.1.tar.bz2.part, run again to continue" in message
    server.cut = len(server.content)
    assert download(tmp_path, server)[0] == 0 and server.asked[-1] == "bytes=500-"


@pytest.mark.parametrize("status, tries", [(404, 1), (503, 5)])
def test_server_error(tmp_path: Path, server: Server, status: int, tries: int) -> None:
    server.status = status
    code, message = download(tmp_path, server)
    assert code == 1 and len(server.asked) == tries and str(status) in message and "Traceback" not in message


def test_failed_download_says_where_else(tmp_path: Path, server: Server) -> None:
    server.status = 404
    status, message = run(tmp_path, *checks(server), *sizes())
    assert status == 1 and "if you have the corpus, say where: LJSPEECH=DIR or --db_root DIR" in message


@pytest.mark.parametrize("name, value", [("md5", "0" * 32), ("sha256", "1" * 64), ("size", "12345")])
def test_wrong_archive(tmp_path: Path, server: Server, name: str, value: str) -> None:
    found = dict(zip(checks(server)[2::2], checks(server)[3::2], strict=True))[f"--{name}"]
    status, message = run(tmp_path, *checks(server, **{name: value}), *sizes())
    assert status == 1 and f"{name} {found}, {value} is wanted" in message and "delete it" in message
    assert (tmp_path / "downloads/LJSpeech-1.1.tar.bz2").read_bytes() == server.content
    assert os.listdir(tmp_path / "downloads") == ["LJSpeech-1.1.tar.bz2"]
    assert run(tmp_path, *checks(server, **{name: ""}), *sizes())[0] == 0, "an empty value isn't checked"


def test_truncated_archive(tmp_path: Path, server: Server) -> None:
    server.content = server.content[:-2000]
    status, message = run(tmp_path, *checks(server), *sizes())
    assert status == 1 and "can't unpack downloads/LJSpeech-1.1.tar.bz2" in message and "Traceback" not in message
    assert not (tmp_path / "downloads/LJSpeech-1.1").exists() and not (tmp_path / "data").exists()


def test_unpacking_that_was_killed(tmp_path: Path, server: Server) -> None:
    half = tmp_path / "downloads/.LJSpeech-1.1.unpacking/LJSpeech-1.1/wavs"
    half.mkdir(parents=True)
    (half / "stale.wav").write_bytes(b"half")
    assert run(tmp_path, *checks(server), *sizes())[0] == 0
    assert not (tmp_path / "downloads/LJSpeech-1.1/wavs/stale.wav").exists() and not half.exists()


@pytest.mark.parametrize("name", ["../outside", "LJSpeech-1.1/../../../outside"])
def test_archive_that_reaches_outside(tmp_path: Path, server: Server, name: str) -> None:
    server.content = pack(tmp_path / "made/LJSpeech-1.1", ((name, b"x"),))
    status, message = download(tmp_path, server)
    assert status == 1 and f"refused to unpack '{name}'" in message
    assert not list(tmp_path.rglob("outside")) and not (tmp_path / "downloads/LJSpeech-1.1").exists()


def test_archive_of_something_else(tmp_path: Path, server: Server) -> None:
    server.content = pack(make_corpus(tmp_path / "made/Other-1.0"))
    status, message = download(tmp_path, server)
    assert status == 1 and "has no folder LJSpeech-1.1 in it" in message
