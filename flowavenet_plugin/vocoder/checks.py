"""Does what a vocoder is given fit it?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from flowavenet_plugin.flow.arithmetic import usable

#: Peak of a sound (full scale is 1) that is no sound any more.
FAR_BEYOND = 10.0


def check_temperature(temperature: float) -> float:
    """Return a temperature that is possible.

    Raises:
        ValueError: If it is below 0 or no number.
    """
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature must be a number from 0, not {temperature}")
    return float(temperature)


def as_tensor(name: str, values: Tensor | np.ndarray | Sequence, like: Tensor) -> Tensor:
    """Return numbers in the type and on the device of ``like``; what holds them may be a tensor, an array or a list.

    Raises:
        ValueError: If they aren't real numbers; the message calls them ``name``.
    """
    if not isinstance(values, Tensor):
        try:
            array = np.asarray(values)
        except ValueError as error:  # lists of unequal lengths
            raise ValueError(f"{name} can't be read as an array: {error}") from error
        if array.dtype.kind not in "fiu":
            raise ValueError(f"{name} must be numbers in a tensor or an array, not {_kind(values, array)}")
        values = torch.from_numpy(np.array(array, dtype=np.float64))  # of any byte order and layout
    if values.is_complex() or values.dtype == torch.bool:
        raise ValueError(f"{name} must be real numbers, not {values.dtype}")
    return usable((values if values.layout == torch.strided else values.to_dense()).to(like))


def as_items(name: str, items: Iterable) -> list:
    """Return several things as a list.

    Raises:
        ValueError: If it is one thing; the message calls them ``name``.
    """
    try:
        return list(items)
    except TypeError as error:
        raise ValueError(f"{name} of several utterances are needed, not {type(items).__name__}") from error


def _kind(values: object, array: np.ndarray) -> str:
    return f"{type(values).__name__} of {array.dtype}" if array.ndim else type(values).__name__


def as_feats(feats: Tensor | np.ndarray, n_mels: int, like: Tensor) -> Tensor:
    """Return the features of an utterance, (frames, n_mels), in the type and on the device of ``like``.

    Raises:
        ValueError: If their shape is another, or a value is no finite number.
    """
    feats = as_tensor("the features", feats, like)
    check_feats(feats, n_mels)
    return feats


def as_noise(noise: Tensor | np.ndarray, frames: int, hop_length: int, seed: object, like: Tensor) -> Tensor:
    """Return noise that is given for an utterance, (frames * hop_length,), in the type and on the device of ``like``.

    Raises:
        ValueError: If its shape is another, a value is no finite number, or there is a seed as well.
    """
    if seed is not None:
        raise ValueError(f"give seed or noise, not both: seed={seed}")
    noise = check_finite("the noise", as_tensor("the noise", noise, like))
    if tuple(noise.shape) != (frames * hop_length,):
        raise ValueError(
            f"noise has shape {tuple(noise.shape)}, but {frames} frames of {hop_length} samples need "
            f"({frames * hop_length},)"
        )
    return noise


def as_waveform(wav: Tensor | np.ndarray, like: Tensor) -> Tensor:
    """Return a waveform, (samples,), in the type and on the device of ``like``.

    Raises:
        ValueError: If its shape is another, or its samples are integers, whose scale isn't known, or as large.
    """
    wav = wav if isinstance(wav, Tensor) else np.asarray(wav)
    dtype = wav.dtype
    if dtype.kind in "iu" if isinstance(dtype, np.dtype) else not dtype.is_floating_point:
        raise ValueError(f"the waveform holds {dtype}, not amplitudes in [-1, 1]: 16-bit samples are divided by 32768")
    wav = as_tensor("the waveform", wav, like)
    if wav.dim() != 1:
        raise ValueError(f"expected a waveform of shape (samples,), got {tuple(wav.shape)}")
    return check_peak("the waveform", wav)


def check_peak(name: str, wav: Tensor) -> Tensor:
    """Return a waveform, shape (samples,), itself.

    Raises:
        ValueError: If it isn't finite, or far beyond full scale; the message calls it ``name``.
    """
    check_finite(name, wav)
    peak = wav.abs().max().item() if wav.numel() else 0.0
    if peak > FAR_BEYOND:
        scale = ": 16-bit samples are divided by 32768" if peak <= 32768 and bool((wav == wav.round()).all()) else ""
        raise ValueError(f"{name} has a peak of {peak:.6g}, but amplitudes lie in [-1, 1]{scale}")
    return wav


def check_feats(feats: Tensor, n_mels: int) -> None:
    """Check the features of an utterance.

    Raises:
        ValueError: If their shape isn't (frames, n_mels), or a value is not finite.
    """
    if feats.dim() != 2 or feats.shape[1] != n_mels or feats.shape[0] == 0:
        hint = " (transposed?)" if feats.dim() == 2 and feats.shape[0] == n_mels and feats.shape[1] > 0 else ""
        raise ValueError(f"expected features of shape (frames, {n_mels}), got {tuple(feats.shape)}{hint}")
    check_finite("the features", feats)


def check_finite(name: str, values: Tensor) -> Tensor:
    """Return the values themselves.

    Raises:
        ValueError: If one is not finite; the message calls them ``name``.
    """
    if not torch.isfinite(values).all():
        raise ValueError(f"{name}: there are values that are not finite")
    return values


def check_lengths(wav_lengths: Tensor, feats_lengths: Tensor, hop_length: int) -> None:
    """Check that waveforms end within the last frame of their features.

    Args:
        wav_lengths: Samples of each item, shape (B,).
        feats_lengths: Frames of each item, shape (B,).
        hop_length: Samples per frame.

    Raises:
        ValueError: If an item's don't.
    """
    whole = feats_lengths * hop_length
    wrong = (wav_lengths > whole) | (wav_lengths < whole - hop_length) | (wav_lengths < 1)
    if wrong.any():
        i = int(wrong.nonzero()[0, 0])
        raise ValueError(
            f"{int(wav_lengths[i])} samples don't fit {int(feats_lengths[i])} frames of {hop_length} samples"
        )


def sample_counts(
    wav: Tensor, feats: Tensor, wav_lengths: Tensor | None, feats_lengths: Tensor | None, hop_length: int
) -> tuple[Tensor, bool]:
    """Return the samples of each item, (B,), and whether there is no padding; nothing on a GPU is read for it.

    Args:
        wav: Shape (B, samples).
        feats: Shape (B, frames, n_mels).
        wav_lengths: Samples of each item, shape (B,); None: all, and they fill the frames.
        feats_lengths: Frames of each item, shape (B,).
        hop_length: Samples per frame.

    Raises:
        ValueError: If they don't fit each other (seen for lengths on the CPU only).
    """
    size = feats.shape[1] * hop_length
    if wav_lengths is None:
        if wav.shape[1] != size:
            raise ValueError(f"{wav.shape[1]} samples don't fill {feats.shape[1]} frames of {hop_length} samples")
        return torch.full((len(wav),), size, device=wav.device), True
    if wav_lengths.device.type != "cpu":
        return wav_lengths, False
    check_lengths(wav_lengths, feats_lengths, hop_length)
    return wav_lengths.to(wav.device), bool((wav_lengths == size).all())
