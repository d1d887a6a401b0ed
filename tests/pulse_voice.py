"""A small vocoder whose source is pulses, not trained, and half a second like speech, for tests of both."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

import spoken
from flowavenet_plugin.data.features import build_feats_extract, extract, full_settings
from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder

FS, HOP = 16000, 128
CONF = full_settings("fbank", dict(fs=FS, n_fft=512, hop_length=HOP, n_mels=40, fmin=60, fmax=7000))
SIZES = dict(n_block=2, n_flow=2, n_layer=1, filter_size=4, upsample_scales=(8, 16), first_squeeze=4)


def voice(moved: bool = True, **settings: object) -> FloWaveNetVocoder:
    """Return the vocoder; ``moved``: parameters are drawn, so that all of it does something."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = dict(source="pulses", prediction_order=16, mel_range=(60.0, 7000.0)) | settings
        made = FloWaveNetVocoder(FS, HOP, 40, **SIZES, **settings)
        if moved:
            for parameter in made.parameters():
                parameter.data.add_(0.02 * torch.randn_like(parameter))
    made.set_features("fbank", CONF)
    return made.eval()


def speech_of(low: float, high: float) -> tuple[Tensor, Tensor, np.ndarray]:
    """Return speech of a pitch from low to high Hz, (1, samples), its features (1, frames, n_mels), and the pitch."""
    wav, pitch = spoken.clip(FS, 0.5, low, high)
    wav, feats = extract(build_feats_extract("fbank", CONF), wav, FS, "clip")
    frames = len(wav) // HOP
    wav, feats = (torch.from_numpy(part[None]) for part in (wav[: frames * HOP], feats[:frames]))
    return wav, feats, pitch
