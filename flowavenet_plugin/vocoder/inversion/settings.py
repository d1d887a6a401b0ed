"""The settings of features, as far as turning them back into sound depends on them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

#: What a setting is where a configuration doesn't give it: the defaults of the extractors of these features.
DEFAULTS: dict[str, dict[str, Any]] = {
    "fbank": dict(
        fs=16000,
        n_fft=1024,
        win_length=None,
        hop_length=256,
        window="hann",
        center=True,
        normalized=False,
        onesided=True,
        n_mels=80,
        fmin=80,
        fmax=7600,
        htk=False,
        log_base=10.0,
    ),
    "original": dict(
        fs=22050, n_fft=1024, win_length=None, hop_length=256, window="hann", n_mels=80, fmin=125, fmax=7600
    ),
}


class FeatureSettings(NamedTuple):
    """How features are made of a waveform.

    A feature is ``scale * ln(mel) + offset``, where mel sums magnitudes raised to ``power`` over a band; a mel below
    ``floor`` counts as that, as does a magnitude below ``least``, and a feature above ``highest``.

    Attributes:
        fs: Sampling rate in Hz.
        n_fft: Size of the Fourier transform in samples.
        hop_length: Samples per frame; frame i is centred at sample i * hop_length.
        win_length: Window in samples, at most ``n_fft``.
        window: Name of torch's window function, without ``_window``; None: rectangular.
        n_mels: Mel bands.
        fmin: Lowest frequency of the bands in Hz.
        fmax: Highest one in Hz.
        htk: Whether the mel scale is HTK's, else Slaney's.
        power: 1: mel of amplitudes; 2: of power.
        scale: See above.
        offset: See above.
        least: See above.
        floor: See above.
        highest: See above.
    """

    fs: int
    n_fft: int
    hop_length: int
    win_length: int
    window: str | None
    n_mels: int
    fmin: float
    fmax: float
    htk: bool
    power: int
    scale: float
    offset: float
    least: float
    floor: float
    highest: float


def feature_settings(kind: str, conf: Mapping[str, Any]) -> FeatureSettings:
    """Read the settings of a feature type.

    Args:
        kind: ``fbank`` (ESPnet2's log-mel) or ``original`` (the mel of the original FloWaveNet).
        conf: Settings, as ``feats_extract_conf`` of a configuration.

    Raises:
        ValueError: If the type or a setting isn't one that sound can be made of; with the value.
    """
    if kind not in DEFAULTS:
        raise ValueError(f"mel inversion: unknown feature type '{kind}'; there are: {', '.join(DEFAULTS)}")
    unknown = sorted(set(conf) - set(DEFAULTS[kind]))
    if unknown:
        raise ValueError(f"mel inversion: feature type '{kind}' has no setting {', '.join(unknown)}")
    values = DEFAULTS[kind] | dict(conf)
    fs, n_fft = values["fs"], values["n_fft"]
    settings = FeatureSettings(
        fs=fs,
        n_fft=n_fft,
        hop_length=values["hop_length"],
        win_length=values["win_length"] or n_fft,
        window=values["window"],
        n_mels=values["n_mels"],
        fmin=float(values["fmin"] or 0),
        fmax=fs / 2 if values["fmax"] is None else float(values["fmax"]),
        htk=values.get("htk", False),
        **_level(kind, values.get("log_base"), math.sqrt(n_fft) if values.get("normalized") else 1.0),
    )
    _check(settings, values)
    return settings


def feature_range(kind: str, conf: Mapping[str, Any]) -> tuple[float, float, float]:
    """Return the least and the largest feature that a waveform can have, and how far a factor of ten in mel moves one.

    Args:
        kind: Type of the features; of unknown ones nothing is known.
        conf: Their settings.
    """
    if kind not in DEFAULTS:
        return -math.inf, math.inf, 1.0
    level = _level(kind, (DEFAULTS[kind] | dict(conf)).get("log_base"), 1.0)
    least = level["scale"] * math.log(level["floor"]) + level["offset"]
    return least, level["highest"], level["scale"] * math.log(10)


def _level(kind: str, log_base: float | None, divisor: float) -> dict[str, Any]:
    """Return where features lie; ``divisor`` is what the spectrum was divided by before (``normalized``)."""
    if kind == "original":  # 20 log10(power) - 20 dB, of which -100 ... 0 dB is 0 ... 1
        return dict(power=2, scale=0.2 / math.log(10), offset=0.8, least=0.0, floor=1e-4, highest=1.0)
    base = math.e if log_base is None else log_base
    if not base > 1:
        raise ValueError(f"mel inversion: log_base must be above 1 or null (e), not {log_base}")
    scale = 1 / math.log(base)
    level = dict(scale=scale, offset=-scale * math.log(divisor), least=1e-5 * divisor, floor=1e-10 * divisor)
    return dict(power=1, **level, highest=math.inf)


def _check(settings: FeatureSettings, values: Mapping[str, Any]) -> None:
    for name in ("fs", "n_fft", "hop_length", "win_length", "n_mels"):
        value = getattr(settings, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"mel inversion: {name} must be a positive whole number, not {value!r}")
    if settings.win_length > settings.n_fft:
        raise ValueError(f"mel inversion: win_length {settings.win_length} is longer than n_fft {settings.n_fft}")
    if 2 * settings.hop_length > settings.win_length:
        raise ValueError(
            f"mel inversion: windows of {settings.win_length} samples must overlap by half at least, but hop_length is "
            f"{settings.hop_length}"
        )
    if not 0 <= settings.fmin < settings.fmax <= settings.fs / 2:
        raise ValueError(
            f"mel inversion: fmin {settings.fmin:g} and fmax {settings.fmax:g} Hz must lie in this order from 0 to "
            f"half of the sampling rate {settings.fs} Hz"
        )
    if settings.window is not None and not hasattr(torch, f"{settings.window}_window"):
        raise ValueError(f"mel inversion: window '{settings.window}': torch has no {settings.window}_window")
    for name, wanted in (("center", True), ("onesided", True)):
        if values.get(name, wanted) is not wanted:
            raise ValueError(f"mel inversion: {name} {values[name]} isn't supported, only {wanted} is")
