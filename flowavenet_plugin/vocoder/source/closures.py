"""Where the pulses of a recording are.

The pitch tells how far apart glottal closures are, not where. In the residual of a linear prediction a closure is a
peak: within a few periods, the phase at which pulses at the pitch agree best with the residual is the peak of the
residual folded by the period. Its path through time is found by dynamic programming.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from flowavenet_plugin.flow.arithmetic import exact_product

#: Harmonics that are looked at, phases that are told apart, and the window in seconds.
HARMONICS, PHASES, WINDOW = 12, 64, 0.05
#: What a change of the phase by a period costs, from a frame to the next; agreement is at most 1 per frame.
JUMP = 4.0


def closures(residual: Tensor, periods: Tensor, voiced: Tensor, hop_length: int, fs: int) -> tuple[Tensor, Tensor]:
    """Shift the phase of pulses to where a recording has them.

    Args:
        residual: What a prediction leaves of the recording, shape (B, frames * hop_length).
        periods: Phase at each sample by the pitch alone, in periods, float64, same shape.
        voiced: From 0 to 1, shape (B, frames).
        hop_length: Samples per frame.
        fs: Sampling rate in Hz.

    Returns:
        Phase at each sample, whole where a pulse is, float64, shape of ``periods``; and 1 or -1, shape (B, 1): which
        way the pulses point.
    """
    found = _harmonics(residual, periods, hop_length, fs)
    agreement = torch.fft.irfft(found, PHASES) * (PHASES / 2)  # (B, frames, phases)
    agreement = agreement / found.abs().sum(dim=2, keepdim=True).clamp(min=1e-12) * voiced[..., None]
    path, score = _best_path(torch.cat([agreement, -agreement]))
    up, down = score.chunk(2)
    sign = torch.where(up >= down, 1.0, -1.0).to(residual)[:, None]
    path = torch.where(sign > 0, *path.chunk(2))
    steps = (torch.diff(path, dim=1) + PHASES // 2).remainder(PHASES) - PHASES // 2  # the shorter way round
    shift = torch.cat([path[:, :1], path[:, :1] + steps.cumsum(dim=1)], dim=1).double() / PHASES
    following = torch.cat([shift[:, 1:], shift[:, -1:]], dim=1)[..., None]
    places = torch.arange(hop_length, device=shift.device, dtype=shift.dtype) / hop_length
    return periods - torch.lerp(shift[..., None], following, places).flatten(1), sign


def _harmonics(residual: Tensor, periods: Tensor, hop_length: int, fs: int) -> Tensor:
    """Return how strong the residual has each harmonic around each frame, complex, (B, frames, 1 + HARMONICS)."""
    size = max(2, 2 * round(WINDOW * fs / 2))
    window = torch.hann_window(size, dtype=residual.dtype, device=residual.device)
    turn = torch.polar(torch.ones_like(residual), (-2 * math.pi * periods.remainder(1)).to(residual.dtype))
    wave, parts = torch.complex(residual, torch.zeros_like(residual)), []
    for _ in range(HARMONICS):
        wave = wave * turn
        both = F.pad(torch.view_as_real(wave).permute(0, 2, 1), (size // 2, size - size // 2))
        both = exact_product(both.unfold(2, size, hop_length)[:, :, : residual.shape[1] // hop_length], window)
        parts.append(torch.complex(both[:, 0], both[:, 1]))
    return torch.stack([torch.zeros_like(parts[0]), *parts], dim=2)


def _best_path(gain: Tensor) -> tuple[Tensor, Tensor]:
    """Find the path of the largest sum through gains (B, frames, phases) with a cost of each change of phase.

    Returns:
        Numbers of phases, shape (B, frames), and the sum, shape (B,).
    """
    phases = torch.arange(gain.shape[2], device=gain.device)
    apart = (phases[:, None] - phases).abs()
    cost = JUMP / gain.shape[2] * torch.minimum(apart, gain.shape[2] - apart).to(gain)
    best, back = gain[:, 0], []
    for now in gain[:, 1:].unbind(dim=1):
        before, place = (best[:, :, None] - cost).max(dim=1)
        best = before + now
        back.append(place)
    score, at = best.max(dim=1)
    path = [at]
    for place in reversed(back):
        at = place.gather(1, at[:, None])[:, 0]
        path.append(at)
    return torch.stack(path[::-1], dim=1), score
