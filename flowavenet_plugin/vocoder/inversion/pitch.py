"""Pitch and voicing, read from a mel-spectrogram without a network.

The lowest bands are turned into sound first (white noise, refined), at a low rate: its STFT is sharper in frequency
than the bands are. How well each pitch explains a frame's spectrum is measured as in SWIPE' (Camacho and Harris 2008):
the square root of the spectrum against cosines whose peaks lie at the first and the prime harmonics. The path of the
best pitches, or none, through all frames is then found by dynamic programming.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torchaudio
from torch import Tensor, nn

from flowavenet_plugin.flow.arithmetic import exact_product
from flowavenet_plugin.vocoder.inversion.analysis import FeatureAnalysis
from flowavenet_plugin.vocoder.inversion.pitch_path import best_path, filled
from flowavenet_plugin.vocoder.inversion.refinement import refine
from flowavenet_plugin.vocoder.inversion.settings import FeatureSettings
from flowavenet_plugin.vocoder.inversion.source import shaped

#: Pitches that are looked for, in Hz, and how many to an octave.
LOWEST, HIGHEST, PER_OCTAVE = 65.0, 500.0, 36
#: Part of the spectrum that is looked at, in Hz, points of it, and the window in seconds.
BAND, POINTS, WINDOW = (40.0, 2000.0), 160, 0.046
HARMONICS = (1, 2, 3, 5, 7, 11, 13, 17)
#: Iterations of the sound that the pitch is read from.
ITERATIONS = 8
#: Strength from which a frame is voiced; cost of a change of the pitch by an octave, and of voicing.
VOICED, JUMP, SWITCH = 0.2, 0.3, 0.1
#: What is added to the strength of pitches below so many Hz, per octave: bands hardly tell their harmonics apart.
FAVOUR, FAVOURED = 0.04, 200.0
#: Frames whose amplitude is less than this share of the loudest aren't voiced.
SILENCE = 0.01


class Pitch(NamedTuple):
    """Pitch of frames.

    Attributes:
        hertz: Pitch in Hz, also where there is no voice (from the nearest that have one), shape (B, frames). Frames
            beyond an item have its last's, here and in ``voiced``.
        voiced: From 0 (noise) to 1, shape (B, frames).
    """

    hertz: Tensor
    voiced: Tensor


def pitches_looked_for() -> Tensor:
    """Return all pitches that are looked for in Hz, ascending, float64, on the CPU."""
    count = int(math.log2(HIGHEST / LOWEST) * PER_OCTAVE) + 1
    return LOWEST * 2 ** (torch.arange(count, dtype=torch.float64, device="cpu") / PER_OCTAVE)


def octaves_between(pitches: Tensor) -> Tensor:
    """Return how many octaves lie between pitches in Hz, (pitches, pitches)."""
    return (pitches.log2()[:, None] - pitches.log2()).abs()


class PitchReader(nn.Module):
    """Reads the pitch of features."""

    def __init__(self, settings: FeatureSettings) -> None:
        """Make the tables.

        Args:
            settings: Of the features.
        """
        super().__init__()
        self._divisor = low_divisor(settings)
        self.low = FeatureAnalysis(settings, self._divisor)
        pitches = pitches_looked_for()
        warped = torch.linspace(*(math.log2(1 + edge / 229) for edge in BAND), POINTS, dtype=torch.float64)
        points = (2**warped - 1) * 229  # even distances to the ear, nearly
        fs = self.low.fs
        size = 2 * round(WINDOW * fs / 2)
        self._size = 1 << (4 * size - 1).bit_length()
        places = (points * self._size / fs).clamp(max=self._size // 2 - 1)
        tables = dict(
            pitches=pitches, kernel=_kernel(pitches, points, min(BAND[1], fs / 2)), cost=JUMP * octaves_between(pitches)
        )
        tables["favour"] = FAVOUR * (FAVOURED / pitches).log2().clamp(min=0)
        tables |= dict(window=torch.hann_window(size, dtype=torch.float64), share=places - places.floor())
        for name, value in tables.items():
            self.register_buffer(f"_{name}", value.float(), persistent=False)
        self.register_buffer("_places", places.long(), persistent=False)

    def forward(self, feats: Tensor, frames: list[int], noise: Tensor) -> Pitch:
        """Read the pitch.

        Args:
            feats: Un-normalised features, shape (B, frames, n_mels).
            frames: Frames of each item.
            noise: White noise to start from, shape (B, at least frames * ``hop_length``).
        """
        layout = self.low.layout(frames)
        wav = shaped(self.low, self.low.spectrum(noise[:, : layout.cover.shape[1]], layout), feats, layout)
        return self._read(refine(self.low, wav, feats, ITERATIONS, layout), frames)

    def of_recording(self, wav: Tensor, frames: list[int]) -> Pitch:
        """Read the pitch of recordings, shape (B, frames * the features' ``hop_length``); frames of each item."""
        low = torchaudio.functional.resample(wav.double(), self._divisor, 1).to(wav)  # products of float64 are exact
        return self._read(low[:, : wav.shape[1] // self._divisor], frames)

    def _read(self, wav: Tensor, frames: list[int]) -> Pitch:
        strength, level = self._strength(wav)
        hertz, voiced = torch.empty_like(level), torch.zeros_like(level)
        for item, count in enumerate(frames):
            path = self._path(strength[item, :count], level[item, :count])
            hertz[item, :count], voiced[item, :count] = self._along(path, strength[item, :count])
            for values in (hertz, voiced):
                values[item, count:] = values[item, count - 1]
        return Pitch(hertz, voiced)

    @property
    def hop_length(self) -> int:
        """Samples of noise per frame."""
        return self.low.hop_length

    def _strength(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        """Return how well each pitch explains each frame, from -1 to 1 (B, frames, pitches), and amplitudes."""
        size, hop = len(self._window), self.low.hop_length
        frames = nn.functional.pad(wav, (size // 2, size)).unfold(1, size, hop)[:, : wav.shape[1] // hop]
        spectrum = torch.fft.rfft(frames * self._window, self._size).abs()
        level = spectrum.square().sum(dim=2).sqrt()
        root = torch.lerp(spectrum[..., self._places], spectrum[..., self._places + 1], self._share).sqrt_()
        fit = exact_product(root, self._kernel) / root.square().sum(dim=2, keepdim=True).sqrt().clamp(min=1e-6)
        return fit + self._favour, level

    def _path(self, strength: Tensor, level: Tensor) -> np.ndarray:
        """Find the best path through strengths (frames, pitches): numbers of pitches, -1 for none, (frames,)."""
        strengths, cost = strength.double().cpu().numpy(), self._cost.double().cpu().numpy()
        strengths = strengths - (level < SILENCE * level.max()).double().cpu().numpy()[:, None]
        return best_path(strengths, np.full(len(strengths), VOICED), cost, SWITCH)

    def _along(self, path: np.ndarray, strength: Tensor) -> tuple[Tensor, Tensor]:
        """Return pitch in Hz and voicing along a path; a parabola through neighbours tells what lies between them."""
        voiced = path >= 0
        if not voiced.any():
            return strength.new_full((len(path),), 2 * LOWEST), strength.new_zeros(len(path))
        places = torch.from_numpy(path.clip(1, strength.shape[1] - 2)).to(strength.device)
        left, middle, right = (strength.gather(1, (places + step)[:, None])[:, 0] for step in (-1, 0, 1))
        bend = (2 * middle - left - right).clamp(min=1e-6)
        hertz = self._pitches[places] * 2 ** ((right - left) / (2 * bend) / PER_OCTAVE).clamp(-0.03, 0.03)
        return tuple(torch.from_numpy(value).to(strength) for value in filled(path, hertz.double().cpu().numpy()))


def _kernel(pitches: Tensor, points: Tensor, top: float) -> Tensor:
    """Return the weights of the points of a spectrum for each pitch, shape (points, pitches).

    Cosines with peaks at harmonics and valleys half way between them, falling as harmonics of speech do; the positive
    part of each has unit length.
    """
    kernel, places = torch.zeros(len(points), len(pitches), dtype=points.dtype), points[:, None] / pitches
    wave = torch.cos(2 * math.pi * places)
    for harmonic in HARMONICS:
        distance = (places - harmonic).abs()
        lobe = torch.where(distance < 0.25, wave, torch.where(distance < 0.75, wave / 2, 0))
        kernel += lobe * (harmonic * pitches < top)
    kernel *= points.rsqrt()[:, None]
    return kernel / kernel.clamp(min=0).square().sum(dim=0).sqrt()


def low_divisor(settings: FeatureSettings) -> int:
    """Return the largest divisor of all sizes that leaves the rate high enough for :data:`BAND`."""
    most = max(1, int(settings.fs / 2 / (1.25 * BAND[1])))
    sizes = math.gcd(settings.n_fft // 2, settings.hop_length, settings.win_length)
    return max(part for part in range(1, most + 1) if sizes % part == 0)
