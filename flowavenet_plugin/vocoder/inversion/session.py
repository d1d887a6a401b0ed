"""Refinement while features and sound arrive."""

from __future__ import annotations

import torch
from torch import Tensor

from flowavenet_plugin.vocoder.inversion.analysis import FeatureAnalysis
from flowavenet_plugin.vocoder.inversion.refinement import refine

#: Frames on either side of those that are refined; and frames over which the pieces are faded into each other.
CONTEXT, FADE = 32, 4


class RefinementSession:
    """Refine one utterance in pieces, each with some frames before and after it, from where they started."""

    def __init__(self, analysis: FeatureAnalysis, iterations: int) -> None:
        """Begin."""
        self._analysis, self._iterations = analysis, iterations
        self._feats: Tensor | None = None
        self._wav: Tensor | None = None
        self._before = 0
        self._tail: Tensor | None = None  # what the piece before made of this one's first frames

    def push(self, feats: Tensor, wav: Tensor, final: bool) -> Tensor:
        """Take frames (frames, n_mels) and their sound (frames * hop_length,); return what is refined, (samples,)."""
        if self._feats is not None:
            feats, wav = torch.cat([self._feats, feats]), torch.cat([self._wav, wav])
        self._feats, self._wav = feats, wav
        before, hop = self._before, self._analysis.hop_length
        ready = len(feats) - before - (0 if final else CONTEXT)
        if ready < 1:
            return wav[:0]
        refined = refine(self._analysis, wav[None], feats[None], self._iterations, self._analysis.layout([len(feats)]))[
            0
        ]
        made = refined[before * hop : (before + ready) * hop].clone()
        if self._tail is not None:
            size = min(len(self._tail), len(made))
            rising = torch.arange(1, size + 1, device=made.device, dtype=made.dtype) / (size + 1)
            made[:size] = torch.lerp(self._tail[:size], made[:size], rising)
        self._tail = refined[(before + ready) * hop : (before + ready + FADE) * hop]
        kept = min(before + ready, CONTEXT)
        cut = before + ready - kept
        self._feats, self._wav, self._before = feats[cut:], wav[cut * hop :], kept
        return made
