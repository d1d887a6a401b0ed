"""What whole utterances and streams of features have in common, and the tables that both compute with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from flowavenet_plugin.flow.arithmetic import arithmetic

Module = TypeVar("Module", bound=nn.Module)


def working_dtype(like: Tensor) -> torch.dtype:
    """Return the precision that a vocoder of such weights computes spectra in: single at least."""
    return torch.float64 if like.dtype == torch.float64 else torch.float32


class Tables(Generic[Module]):
    """A module without weights, made when it is first needed, in each precision and on each device.

    It is no part of the vocoder that has it, so that what converts the vocoder leaves the tables alone.
    """

    def __init__(self, make: Callable[[], Module]) -> None:
        """Keep what makes the module."""
        self._make = make
        self._made: dict[tuple[torch.dtype, torch.device], Module] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_made": {}}  # made anew by whoever reads it

    def like(self, weights: Tensor) -> Module:
        """Return the module for a vocoder of such weights: in single or double precision, and on their device."""
        key = working_dtype(weights), weights.device
        if key not in self._made:
            with arithmetic(torch.device("cpu")), torch.device("cpu"):
                made = self._make()
            self._made[key] = made.to(weights.device, key[0])
        return self._made[key]


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
