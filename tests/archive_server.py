"""An archive of a corpus, and a server on this machine that has it."""

from __future__ import annotations

import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Server:
    """Serves one archive. ``ranges``: knows the Range header; ``cut``: ends each answer after so many bytes."""

    def __init__(self, content: bytes, name: str = "LJSpeech-1.1.tar.bz2") -> None:
        self.content, self.ranges, self.cut, self.status = content, True, len(content), 0
        self.asked: list[str | None] = []
        served = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # noqa: N802
                served.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/{name}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers["Range"]
        self.asked.append(asked)
        start = int(asked[6:-1]) if asked and self.ranges else 0
        if self.status or start >= len(self.content):
            handler.send_error(self.status or 416)
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        handler.send_header("Content-Length", str(len(self.content) - start))
        handler.end_headers()
        handler.wfile.write(self.content[start : start + self.cut])


def pack(folder: Path, more: tuple[tuple[str, bytes], ...] = ()) -> bytes:
    """The folder as a tar.bz2, with more files in it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:bz2") as tar:
        tar.add(folder, arcname=folder.name)
        for name, content in more:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()
