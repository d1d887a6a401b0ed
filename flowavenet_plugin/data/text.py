"""Text files that a user brings: with or without a byte order mark, and never undecoded."""

from __future__ import annotations

import codecs
from pathlib import Path

_OTHERS = {codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}


def read_text(path: str | Path) -> str:
    """Read a text file in UTF-8; a byte order mark at its start is skipped.

    Raises:
        OSError: If it can't be read.
        ValueError: If it is of another encoding; with file and line.
    """
    content = Path(path).read_bytes()
    if (other := _OTHERS.get(content[:2])) is not None:
        raise ValueError(f"{path}: not UTF-8 text but {other}: convert it (iconv -f {other} -t UTF-8)")
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line, bad = content.count(b"\n", 0, error.start) + 1, content[error.start : error.start + 4]
        raise ValueError(f"{path}:{line}: not UTF-8 text ({bad!r}): convert it (iconv -f ... -t UTF-8)") from None
