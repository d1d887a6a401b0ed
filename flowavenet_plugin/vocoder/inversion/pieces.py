"""What whole utterances and streams of features have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


def working_dtype(like: Tensor) -> torch.dtype:
    """Return the precision that a vocoder of such weights computes spectra in: single at least."""
    return torch.float64 if like.dtype == torch.float64 else torch.float32


def in_chunks(feats: Iterable[Tensor], chunk_frames: int) -> Iterator[tuple[Tensor, bool]]:
    """Cut features that arrive in pieces of any size into chunks of equal size.

    Args:
        feats: Pieces, none of them empty, shape (frames_i, n_mels).
        chunk_frames: Frames of a chunk; the last may be shorter.

    Yields:
        A chunk (frames, n_mels), and whether it is the last.

    Raises:
        ValueError: If ``chunk_frames`` is impossible, or no frame arrives.
    """
    if chunk_frames < 1:
        raise ValueError(f"chunk_frames must be at least 1, not {chunk_frames}")
    waiting: list[Tensor] = []
    for piece in feats:
        waiting.append(piece)
        while sum(map(len, waiting)) > chunk_frames:  # one frame stays at least, as the end must be marked
            joined = torch.cat(waiting)
            waiting = [joined[chunk_frames:]]
            yield joined[:chunk_frames], False
    if not waiting:
        raise ValueError("no frame of features has arrived")
    yield torch.cat(waiting), True
