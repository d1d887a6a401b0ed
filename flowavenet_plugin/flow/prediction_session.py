"""The linear prediction undone in pieces, as features and residual arrive."""

from __future__ import annotations

import torch
from torch import Tensor

from flowavenet_plugin.flow.arithmetic import own_arithmetic
from flowavenet_plugin.flow.prediction import LinearPrediction
from flowavenet_plugin.flow.recursion import Filters, solve


class PredictionSession:
    """The inverse of one utterance in pieces: features come first, residual and sound follow."""

    def __init__(self, prediction: LinearPrediction) -> None:
        """Start."""
        self._prediction = prediction
        self._frames: tuple[Tensor, Tensor] | None = None  # features and conditioning of frames not used up
        self._previous: Tensor | None = None  # conditioning of the frame before these
        self._filters: Filters | None = None  # of blocks that wait for their residual, (1, N) in front
        self._residual: Tensor | None = None
        self._past: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._prediction.device

    @own_arithmetic
    def push_frames(self, feats: Tensor, cond: Tensor, final: bool) -> None:
        """Take features (frames, n_mels), as they are and standardised; ``final``: these are the last."""
        if self._frames is not None:
            feats, cond = (torch.cat(pair) for pair in zip(self._frames, (feats, cond), strict=True))
        self._previous = cond[:1] if self._previous is None else self._previous
        if final:
            feats, cond = torch.cat([feats, feats[-1:]]), torch.cat([cond, cond[-1:]])
        ready = len(feats) - 1
        self._frames = feats[ready:], cond[ready:]
        if ready < 1:
            return
        before = torch.cat([self._previous, cond[: ready - 1]])
        self._previous = cond[ready - 1 : ready]
        context = torch.cat([before, cond[:-1], cond[1:]], dim=1)
        new = Filters(*(part[None] for part in self._prediction.filters(feats[:-1], feats[1:], context)))
        if self._filters is not None:
            new = Filters(*(torch.cat(pair, dim=1) for pair in zip(self._filters, new, strict=True)))
        self._filters = new

    @own_arithmetic
    def push(self, residual: Tensor) -> Tensor:
        """Take residual (samples,) and return the sound of the blocks that are whole, shape (samples,)."""
        if self._residual is not None:
            residual = torch.cat([self._residual, residual])
        known = 0 if self._filters is None else self._filters.weights.shape[1]
        count = min(known, len(residual) // self._prediction.block)
        self._residual = residual[count * self._prediction.block :]
        if count == 0:
            return residual[:0]
        now = Filters(*(part[:, :count] for part in self._filters))
        self._filters = Filters(*(part[:, count:] for part in self._filters))
        blocks = residual[: count * self._prediction.block].view(1, count, -1)
        wav, self._past = solve(blocks, now, self._past)
        return wav[0]
