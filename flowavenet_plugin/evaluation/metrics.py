"""Figures of merit: log-spectral distance, and means with their confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import t as student_t

#: Power more than this far below the loudest bin of a pair is inaudible beside it, and counts as equal, in dB.
DYNAMIC_RANGE = 80.0


class Summary(NamedTuple):
    """A mean and how well it is known.

    Attributes:
        mean: Mean of the values, in their unit.
        half_width: Half the width of the 95% confidence interval of the mean; NaN for a single value.
        count: Number of values.
    """

    mean: float
    half_width: float
    count: int

    def __str__(self) -> str:
        """Return ``mean ± half width``, or the value alone if there is only one."""
        return f"{self.mean:.3f}" if math.isnan(self.half_width) else f"{self.mean:.3f} ± {self.half_width:.3f}"


def summarise(values: Sequence[float] | np.ndarray) -> Summary:
    """Average values, one per utterance.

    The interval is Student's: t(0.975, n - 1) * s / sqrt(n), where s is the standard deviation with n - 1.

    Args:
        values: Finite numbers, at least one.

    Raises:
        ValueError: If there is no value, or one isn't finite; with its place.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("no values to average")
    if not np.isfinite(array).all():
        index = int(np.flatnonzero(~np.isfinite(array))[0])
        raise ValueError(f"value {index} of {array.size} is {array[index]}, finite numbers are wanted")
    if array.size == 1:
        return Summary(float(array[0]), math.nan, 1)
    error = array.std(ddof=1) / math.sqrt(array.size)
    return Summary(float(array.mean()), float(student_t.ppf(0.975, array.size - 1) * error), array.size)


def log_spectral_distance(
    reference: np.ndarray,
    generated: np.ndarray,
    fs: int,
    max_length_difference: int = 0,
) -> float:
    """Compare two recordings by their power spectra.

    Both are cut into frames of n_fft samples, n_fft / 4 apart, where n_fft is the smallest power of two that lasts at
    least 40 ms (1024 at 22,050 Hz); each frame is multiplied by a periodic Hann window; P(l, k) is the squared
    magnitude of its discrete Fourier transform, bins k = 0 ... n_fft / 2. Frames lie inside the signal, so up to
    n_fft / 4 - 1 samples at the end don't count; a signal shorter than n_fft is padded with zeros to one frame.
    P is raised to at least 1e-8 (-80 dB) times the largest P of *both* signals, so that the distance is symmetric,
    doesn't change when both are scaled alike, and isn't ruled by inaudible noise. Then::

        distance = mean over l of sqrt(mean over k of (10 log10 P_reference(l, k) - 10 log10 P_generated(l, k))^2)

    It is phase-blind and not aligned in time: both have to say the same thing at the same moment.

    Args:
        reference: Natural speech, shape (samples,).
        generated: Synthesised speech, shape (samples,).
        fs: Sampling rate of both in Hz.
        max_length_difference: If the lengths differ by at most so many samples, the longer one is cut at its end.

    Returns:
        Distance in dB, from 0 (equal) to 80; 0 also if both are silent.

    Raises:
        ValueError: If one is empty or holds NaN or infinity, or the lengths differ by more; with both numbers.
    """
    check_pair(reference, generated, max_length_difference)
    samples = min(len(reference), len(generated))
    powers = [_power_spectrogram(wav[:samples], frame_length(fs)) for wav in (reference, generated)]
    floor = max(power.max() for power in powers) * 10.0 ** (-DYNAMIC_RANGE / 10.0)
    if floor == 0.0:  # both are silent
        return 0.0
    decibels = [10.0 * np.log10(np.maximum(power, floor)) for power in powers]
    return float(np.sqrt(np.mean((decibels[0] - decibels[1]) ** 2, axis=1)).mean())


def frame_length(fs: int) -> int:
    """Return the smallest power of two, in samples, that lasts at least 40 ms at ``fs`` Hz."""
    return 2 ** math.ceil(math.log2(0.04 * fs))


def check_pair(reference: np.ndarray, generated: np.ndarray, max_length_difference: int = 0) -> None:
    """Check that two recordings can be compared.

    Args:
        reference: Natural speech, shape (samples,).
        generated: Synthesised speech, shape (samples,).
        max_length_difference: Samples by which their lengths may differ.

    Raises:
        ValueError: If one is empty or holds NaN or infinity, or the lengths differ by more; with both numbers.
    """
    for name, wav in (("reference", reference), ("generated", generated)):
        _check_wav(name, wav)
    if abs(len(reference) - len(generated)) > max_length_difference:
        raise ValueError(
            f"the reference has {len(reference)} samples, the generated audio {len(generated)}; "
            f"they may differ by at most {max_length_difference}"
        )


def _check_wav(name: str, wav: np.ndarray) -> None:
    if wav.ndim != 1 or wav.size == 0:
        raise ValueError(f"the {name} audio has shape {wav.shape}; (samples,) with at least 1 is wanted")
    bad = np.flatnonzero(~np.isfinite(wav))
    if bad.size:
        raise ValueError(f"the {name} audio has {bad.size} samples of {wav.size} that aren't finite, first at {bad[0]}")


def _power_spectrogram(wav: np.ndarray, n_fft: int) -> np.ndarray:
    """Squared magnitudes in float64, shape (frames, n_fft / 2 + 1)."""
    wav = np.pad(wav.astype(np.float64), (0, max(n_fft - len(wav), 0)))
    frames = np.lib.stride_tricks.sliding_window_view(wav, n_fft)[:: n_fft // 4]
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(n_fft) / n_fft)
    return np.abs(np.fft.rfft(frames * window, axis=1)) ** 2
