"""A clip like speech, made up: gliding harmonics under two formants, noise, and a pause."""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

from flowavenet_plugin.data.features import build_feats_extract, extract, full_settings


def clip(fs: int, seconds: float = 0.4, low: float = 110.0, high: float = 150.0) -> tuple[np.ndarray, np.ndarray]:
    """Return a waveform (samples,), float32, and its pitch at each sample in Hz, 0 where there is none."""
    rng, size = np.random.default_rng(0), int(fs * seconds)
    pitch = np.linspace(low, high, size)
    pitch[int(0.65 * size) :] = 0.0  # then noise, then a pause
    pulses = np.diff(np.floor(np.cumsum(pitch / fs)), prepend=0.0) * np.sqrt(fs / np.maximum(pitch, 1.0))
    source = np.where(pitch > 0, pulses + 0.03 * rng.standard_normal(size), 0.3 * rng.standard_normal(size))
    source[int(0.85 * size) :] *= 1e-3
    for formant, width in ((500.0, 80.0), (0.17 * fs, 150.0)):
        radius, angle = np.exp(-np.pi * width / fs), 2 * np.pi * formant / fs
        source = lfilter([1.0 - radius], [1.0, -2.0 * radius * np.cos(angle), radius**2], source)
    return (0.5 * source / np.abs(source).max()).astype(np.float32), pitch


def features(kind: str = "fbank", **conf: object) -> tuple[dict, np.ndarray, np.ndarray]:
    """Return all settings of features, the clip (of ``original``: as scaled), and its features (frames, n_mels)."""
    settings = full_settings(kind, conf)
    wav, feats = extract(build_feats_extract(kind, settings), clip(settings["fs"])[0], settings["fs"], "clip")
    return settings, wav, feats
