"""Batches as matrices: one row per column of (B, C, T), so that a 1x1 convolution is one matrix product.

Items stand below each other with ``gap`` rows of zeros after each: a convolution that reaches at most ``gap`` rows far
reads the zeros of its own padding there, never the neighbouring item, and needs no padded copy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """How (B, C, T) lies in a matrix of B * (T + gap) rows.

    Attributes:
        batch: B.
        length: T.
        gap: Rows of zeros after each item; 0 for a single item, which has the matrix's own end.
        columns: 1 for rows inside the utterance and 0 beyond, shape (rows, 1); None: all but the gaps are inside.
    """

    batch: int
    length: int
    gap: int
    columns: Tensor | None = None

    @classmethod
    def of(cls, x: Tensor, reach: int, mask: Tensor | None = None) -> Rows:
        """Lay out x (B, C, T) for convolutions that reach ``reach`` rows far; ``mask`` is 1 inside, like x."""
        rows = cls(x.shape[0], x.shape[2], reach if x.shape[0] > 1 else 0)
        if mask is None:
            return rows
        return cls(rows.batch, rows.length, rows.gap, rows.pack(mask.amax(dim=1, keepdim=True)))

    def pack(self, x: Tensor) -> Tensor:
        """Turn (B, C, T) into (rows, C), what a row holds beside each other; a view where memory lies so already."""
        columns = x.transpose(1, 2)
        rows = (F.pad(columns, (0, 0, 0, self.gap)) if self.gap else columns).reshape(-1, x.shape[1])
        return rows.contiguous()

    def unpack(self, rows: Tensor) -> Tensor:
        """Turn (rows, C) into (B, C, T), a view."""
        return rows.view(self.batch, self.length + self.gap, -1)[:, : self.length].transpose(1, 2)

    def clear(self, rows: Tensor, start: int = 0) -> Tensor:
        """Set what lies outside of utterances to zero, in place, of all rows: ``start`` is 0."""
        if self.columns is not None:
            rows.mul_(self.columns)
        elif self.gap:
            rows.view(self.batch, self.length + self.gap, -1)[:, self.length :].zero_()
        return rows

    def sum_items(self, rows: Tensor) -> Tensor:
        """Sum each item's rows, (rows, C) to (B,); what lies outside of utterances must be zero."""
        return rows.view(self.batch, -1).sum(dim=1)


@dataclass(frozen=True)
class Marked:
    """Rows of one item or several, from ``first`` on, of which some lie outside of utterances.

    Attributes:
        mask: 1 for rows inside and 0 for those outside, shape (rows, 1); None: all are inside.
        first: The first row that it tells of.
    """

    mask: Tensor | None
    first: int

    def clear(self, rows: Tensor, start: int) -> Tensor:
        """Set what lies outside to zero, in place, of rows (n, C) from ``start`` on."""
        inside = self.inside(start, start + len(rows))
        return rows if inside is None else rows.mul_(inside)

    def inside(self, start: int, end: int) -> Tensor | None:
        """Return the mask of rows from ``start`` to ``end``."""
        return None if self.mask is None else self.mask[start - self.first : end - self.first]
