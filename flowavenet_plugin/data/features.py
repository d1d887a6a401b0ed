"""From a waveform to log-mel frames that fit it: ESPnet2's features, or those of the original FloWaveNet."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import librosa
import numpy as np
import torch
from espnet2.tts.feats_extract.abs_feats_extract import AbsFeatsExtract
from espnet2.tts.feats_extract.log_mel_fbank import LogMelFbank
from torch import Tensor

from flowavenet_plugin.data.scp import check_fit

# -60 dB of full scale. Speech peaks far above; what stays below has nothing to learn from and its scale is noise.
SILENCE_PEAK = 1e-3
# What the original FloWaveNet scales every utterance's peak to.
ORIGINAL_PEAK = 0.999
#: Frames that are computed at once.
PART_FRAMES = 16384


class OriginalMel(AbsFeatsExtract):
    """Mel spectrogram of the original FloWaveNet, for models trained with the original code.

    Power mel (Slaney) to decibels, 20 log10(max(1e-4, mel)) - 20, of which -100 ... 0 dB becomes 0 ... 1. It is meant
    for audio scaled to a peak of 0.999, which :func:`extract` does. Its numbers can't be converted to ESPnet2's.

    Args:
        fs: Sampling rate in Hz.
        n_fft: FFT size in samples.
        win_length: Window length in samples; None is n_fft.
        hop_length: Samples per frame.
        window: Name of torch's window function, without ``_window``.
        n_mels: Mel bands.
        fmin: Lowest frequency in Hz.
        fmax: Highest frequency in Hz; None is half the sampling rate.
    """

    def __init__(
        self,
        fs: int = 22050,
        n_fft: int = 1024,
        win_length: int | None = None,
        hop_length: int = 256,
        window: str = "hann",
        n_mels: int = 80,
        fmin: int | None = 125,
        fmax: int | None = 7600,
    ) -> None:
        super().__init__()
        if not hasattr(torch, f"{window}_window"):
            raise ValueError(f"window '{window}': torch has no {window}_window")
        self.fs, self.n_fft, self.win_length, self.hop_length = fs, n_fft, win_length, hop_length
        self.window, self.n_mels, self.fmin, self.fmax = window, n_mels, fmin, fmax
        melmat = librosa.filters.mel(sr=fs, n_fft=n_fft, n_mels=n_mels, fmin=fmin or 0.0, fmax=fmax)
        self.register_buffer("melmat", torch.from_numpy(melmat.T).float(), persistent=False)
        self.register_buffer("_window", getattr(torch, f"{window}_window")(win_length or n_fft), persistent=False)

    def output_size(self) -> int:
        """Mel bands."""
        return self.n_mels

    def get_parameters(self) -> dict[str, Any]:
        """What a vocoder has to know of the features, under the names that LogMelFbank uses."""
        return {
            "fs": self.fs,
            "n_fft": self.n_fft,
            "n_shift": self.hop_length,
            "window": self.window,
            "n_mels": self.n_mels,
            "win_length": self.win_length,
            "fmin": self.fmin,
            "fmax": self.fmax,
        }

    def forward(self, input: Tensor, input_lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Compute features.

        Args:
            input: Audio, peak 0.999, shape (B, samples), samples > n_fft // 2.
            input_lengths: Samples of each item, shape (B,); None means all.

        Returns:
            Features in 0 ... 1, shape (B, frames, n_mels), 0 past an item's end; frames of each item, shape (B,),
            samples // hop_length + 1.
        """
        if input_lengths is None:
            input_lengths = input.new_full((len(input),), input.shape[1], dtype=torch.long)
        spectrum = torch.stft(
            input,
            self.n_fft,
            hop_length=self.hop_length,
            win_length=self.win_length or self.n_fft,
            window=self._window,
            center=True,
            pad_mode="reflect",  # as librosa did in 2018; it pads with zeros today
            return_complex=True,
        )
        mel = spectrum.abs().square().transpose(1, 2) @ self.melmat  # (B, frames, n_mels)
        decibel = 20 * mel.clamp(min=1e-4).log10() - 20
        feats = ((decibel + 100) / 100).clamp(0, 1)
        lengths = input_lengths // self.hop_length + 1
        past_the_end = torch.arange(feats.shape[1], device=feats.device) >= lengths[:, None]
        return feats.masked_fill(past_the_end[..., None], 0.0), lengths


FEATS_EXTRACTORS: dict[str, type[AbsFeatsExtract]] = {"fbank": LogMelFbank, "original": OriginalMel}


def full_settings(name: str, conf: dict[str, Any] | None = None) -> dict[str, Any]:
    """All settings of a feature type, defaults included, so that two of them can be compared key by key.

    Raises:
        ValueError: On an unknown type, a key that the type doesn't take, or sizes that contradict each other.
    """
    if name not in FEATS_EXTRACTORS:
        raise ValueError(f"unknown feature type '{name}'; there are: {', '.join(FEATS_EXTRACTORS)}")
    parameters = inspect.signature(FEATS_EXTRACTORS[name].__init__).parameters
    settings = {key: value.default for key, value in parameters.items() if key != "self"}
    for key in conf or {}:
        if key not in settings:
            raise ValueError(f"feature type '{name}' has no setting '{key}'; it has: {', '.join(settings)}")
    settings.update(conf or {})
    settings["win_length"] = settings["win_length"] or settings["n_fft"]
    _check_settings(settings)
    return settings


def _check_settings(settings: dict[str, Any]) -> None:
    """Raises ValueError, with both values, for settings that fail later, or in silence."""
    for key in ("fs", "n_fft", "win_length", "hop_length", "n_mels"):
        if isinstance(settings[key], bool) or not isinstance(settings[key], int) or settings[key] < 1:
            raise ValueError(f"{key} must be a positive integer, got {settings[key]!r}")
    if settings["win_length"] > settings["n_fft"]:
        raise ValueError(f"win_length {settings['win_length']} is longer than n_fft {settings['n_fft']}")
    if settings["fmax"] is not None and settings["fmax"] > settings["fs"] / 2:
        raise ValueError(f"fmax {settings['fmax']} Hz is above half the sampling rate {settings['fs']} Hz")
    low, high = settings["fmin"] or 0, settings["fs"] / 2 if settings["fmax"] is None else settings["fmax"]
    if not 0 <= low < high:
        raise ValueError(f"fmin {low} Hz must be below fmax {high:g} Hz, and not below 0: no band lies between them")
    if not settings.get("center", True):
        raise ValueError("center false: frames wouldn't cover the audio; only centred frames fit a vocoder")
    if settings.get("log_base") not in (None, 2.0, 10.0):
        raise ValueError(f"log_base must be 10, 2 or null (e), got {settings['log_base']}")


def check_bands(settings: dict[str, Any]) -> None:
    """Check that every band hears something; features that are to be made, not those that a model has.

    Args:
        settings: All settings, see :func:`full_settings`.

    Raises:
        ValueError: If bands lie between two frequencies of the Fourier transform; with how many and what settings.
    """
    sizes = {key: settings[key] for key in ("n_fft", "n_mels", "fmax")} | dict(fmin=settings["fmin"] or 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # librosa's on what is refused here
        filters = librosa.filters.mel(sr=settings["fs"], htk=settings.get("htk", False), **sizes)
    empty = int((filters.max(axis=1) == 0).sum())
    if empty:
        raise ValueError(
            f"n_mels {settings['n_mels']} with n_fft {settings['n_fft']} at {settings['fs']} Hz: {empty} bands hold no "
            "frequency of the Fourier transform and would never change: take fewer bands, or a larger n_fft"
        )


def build_feats_extract(name: str, conf: dict[str, Any] | None = None) -> AbsFeatsExtract:
    """Make a feature extractor.

    Args:
        name: A key of FEATS_EXTRACTORS.
        conf: Its constructor's arguments.

    Raises:
        ValueError: See :func:`full_settings`.
    """
    settings = full_settings(name, conf)
    try:
        return FEATS_EXTRACTORS[name](**settings)
    except Exception as error:  # typeguard's exception isn't the same class in all its versions
        raise ValueError(f"feature type '{name}' with {settings}: {error}") from error


def extract(feats_extract: AbsFeatsExtract, wav: np.ndarray, fs: int, utt: str) -> tuple[np.ndarray, np.ndarray]:
    """Compute features that fit the audio.

    Args:
        feats_extract: See :func:`build_feats_extract`.
        wav: Samples in [-1, 1], shape (samples,).
        fs: Its rate in Hz.
        utt: Utterance id, for the messages.

    Returns:
        Audio (samples,) and features (frames, n_mels), float32, with
        (frames - 1) * hop <= samples <= frames * hop. ``fbank``: the audio as it came. ``original``: scaled to peak
        0.999 and zero-padded on both sides to frames * hop samples, as the original code does.

    Raises:
        ValueError: On another rate, or empty, non-finite, silent or too short audio; with the id and both values.
    """
    check_wav(wav, fs, utt, feats_extract.fs, feats_extract.n_fft // 2 + 1)
    wav = np.ascontiguousarray(wav, dtype=np.float32)
    if isinstance(feats_extract, OriginalMel):
        wav = wav / np.abs(wav).max() * ORIGINAL_PEAK
    feats = _in_parts(feats_extract, torch.from_numpy(wav)).numpy()
    if isinstance(feats_extract, OriginalMel):
        missing = len(feats) * feats_extract.hop_length - len(wav)
        wav = np.pad(wav, (missing // 2, missing - missing // 2))
    check_fit(utt, len(wav), len(feats), feats_extract.hop_length)
    return wav, feats


@torch.no_grad()
def _in_parts(feats_extract: AbsFeatsExtract, wav: Tensor) -> Tensor:
    """Compute the features (frames, n_mels) of audio (samples,), of long audio some minutes at once.

    Each part has frames before and after it, as many as reach into it. Lengths aren't told: all is audio, and of
    lengths ESPnet2 makes a mask whose memory grows with their square.
    """
    hop = feats_extract.hop_length
    count, reach = len(wav) // hop + 1, -(-feats_extract.n_fft // hop)
    parts = []
    for first in range(0, count, PART_FRAMES):
        last = min(first + PART_FRAMES, count)
        if count - last <= reach + 1:  # what is left is too short to be reflected at its end
            last = count
        start = max(0, first - reach)
        end = len(wav) if last == count else (last + reach) * hop
        parts.append(feats_extract(wav[None, start * hop : end])[0][0, first - start : last - start])
        if last == count:
            break
    return torch.cat(parts)


def check_wav(wav: np.ndarray, fs: int, utt: str, wanted_fs: int, min_samples: int) -> None:
    """Refuse audio that would spoil training.

    Args:
        wav: Samples, shape (samples,).
        fs: Its rate in Hz.
        utt: Utterance id, for the messages.
        wanted_fs: The rate it must have, Hz.
        min_samples: Samples it must have at least; one frame reflects half a window at each end.

    Raises:
        ValueError: With the id and both values.
    """
    if fs != wanted_fs:
        raise ValueError(
            f"{utt}: sampling rate {fs} Hz, {wanted_fs} Hz is wanted (--resample true converts it, "
            f"--feats_extract_conf fs={fs} makes features of this rate)"
        )
    if len(wav) == 0:
        raise ValueError(f"{utt}: the audio is empty: 0 samples, at least {min_samples} are wanted")
    bad = np.flatnonzero(~np.isfinite(wav))
    if len(bad):
        raise ValueError(f"{utt}: {len(bad)} of {len(wav)} samples are NaN or infinite, the first is sample {bad[0]}")
    if len(wav) < min_samples:
        raise ValueError(f"{utt}: too short: {len(wav)} samples, at least {min_samples} are wanted")
    peak = np.abs(wav).max()
    if peak < SILENCE_PEAK:
        raise ValueError(f"{utt}: silent: its peak is {peak:.2e}, at least {SILENCE_PEAK:.0e} is wanted")
