"""Constant tones of a trained model before and after the denoiser, and temperatures of the flow's scales.

    python benchmarks/tones.py --model_file exp/voc_x/valid.loss.best.pth --dump dump/fbank/dev

A flow that squeezes by N samples may leave tones at the multiples of the sampling rate over N. Of each, its power is
compared with that of its neighbourhood (0 dB: no tone): in speech, and in what the model says for a quiet mel without
noise, where nothing hides them. Distances are to the natural recordings: the denoiser and the temperatures should not
cost any. --dump is a folder of run.sh's stage 1. The last line is JSON; figures are in dB.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from flowavenet_plugin import load_vocoder
from flowavenet_plugin.data.scp import open_feats, read_scp
from flowavenet_plugin.evaluation.metrics import log_spectral_distance
from flowavenet_plugin.evaluation.spectral import log_mel_distance
from flowavenet_plugin.vocoder.denoiser import QUIET, Denoiser, constant_tones
from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder
from flowavenet_plugin.vocoder.noise import NoiseSource
from flowavenet_plugin.vocoder.seeds import noise_seed

#: A tone that stands so far above its neighbourhood counts.
AUDIBLE = 6.0


def utterances(args: argparse.Namespace, vocoder: FloWaveNetVocoder) -> list[tuple[Tensor, np.ndarray]]:
    """Return features (frames, n_mels) and natural sound (samples,) of some utterances."""
    wavs, found = read_scp(args.dump / "wav.scp"), []
    for key, values in islice(open_feats(args.dump / "feats.scp").items(), args.utterances):
        wav, _ = soundfile.read(wavs[key], dtype="float32")
        feats = torch.from_numpy(values)
        if args.seconds:
            feats = feats[: max(1, round(args.seconds * vocoder.fs / vocoder.hop_length))]
        found.append((feats, wav[: len(feats) * vocoder.hop_length]))
    return found


def scale_of_places(vocoder: FloWaveNetVocoder) -> Tensor:
    """Return the scale that each place of the noise enters at, 0: the first split, for places of one period."""
    kept = [block.kept for block in vocoder.flow.plan if block.kept is not None]

    def scale(place: int) -> int:
        for number, stream in enumerate(kept):
            if place % 2 != stream:
                return number
            place //= 2
        return len(kept)

    return torch.tensor([scale(place) for place in range(2 ** len(kept))])


def synthesise(vocoder: FloWaveNetVocoder, feats: Tensor, temperatures: list[float]) -> Tensor:
    """Return sound (samples,) at one temperature, or at one for each scale."""
    noise = NoiseSource(noise_seed(0, feats)).draw(len(feats) * vocoder.hop_length)
    scales = scale_of_places(vocoder)
    factors = torch.tensor(temperatures if len(temperatures) > 1 else temperatures * (int(scales.max()) + 1))
    if len(factors) != scales.max() + 1:
        raise ValueError(f"{len(factors)} temperatures for {int(scales.max()) + 1} scales")
    factor = factors[scales].repeat(-(-len(noise) // len(scales)))[: len(noise)]
    return vocoder.inference(feats, noise=noise * factor)


def describe_tones(wav: Tensor, vocoder: FloWaveNetVocoder) -> dict[str, float]:
    """Return how strong the tones of a sound are, and its level below full scale."""
    tones = constant_tones(wav, vocoder.flow.column)
    return dict(
        tones_mean=tones.mean().item(),
        tones_largest=tones.max().item(),
        tones_audible=int((tones > AUDIBLE).sum()),
        tones_measured=len(tones),
        level=10 * torch.log10(wav.square().mean()).item(),
    )


def describe(wavs: list[Tensor], natural: list[np.ndarray], vocoder: FloWaveNetVocoder) -> dict[str, float]:
    """Return :func:`describe_tones` of some sounds, and how far they are from the natural ones."""
    pairs = [(wav, sound.numpy()[: len(wav)]) for wav, sound in zip(natural, wavs, strict=True)]
    return dict(
        describe_tones(torch.cat(wavs), vocoder),
        log_spectral_distance=float(np.mean([log_spectral_distance(*pair, vocoder.fs) for pair in pairs])),
        log_mel_distance=float(np.mean([log_mel_distance(*pair, vocoder.fs) for pair in pairs])),
    )


def measure(args: argparse.Namespace) -> list[dict[str, object]]:
    """Measure natural sound, strengths of the denoiser, and temperatures."""
    vocoder = load_vocoder(args.model_file, refine=0)
    if not hasattr(vocoder, "flow"):
        sys.exit(f"tones.py: {args.model_file} is a {type(vocoder).__name__}, which has no flow")
    vocoder.for_inference()
    feats, natural = zip(*utterances(args, vocoder), strict=True)
    rows: list[dict[str, object]] = []

    def add(what: str, figures: dict[str, float]) -> None:
        rows.append(dict(what=what, **figures))
        words = [f"{what:28s}", f"{figures['tones_audible']:2d} of {figures['tones_measured']} tones > {AUDIBLE:g} dB"]
        shown = ("tones_mean", "tones_largest", "level", "log_spectral_distance", "log_mel_distance")
        words += [f"{name} {figures[name]:.2f}" for name in shown if name in figures]
        print("  ".join(words), flush=True)

    denoiser = Denoiser(vocoder)
    quiet = (vocoder.feats_mean - QUIET * vocoder.feats_std).expand(args.quiet_frames, -1)
    hum = vocoder.inference(quiet, temperature=0.0, seed=0)
    sounds = [synthesise(vocoder, item, [vocoder.temperature]) for item in feats]
    add("natural", describe([torch.from_numpy(wav) for wav in natural], natural, vocoder))
    for strength in args.strengths:
        add(f"quiet mel, denoiser {strength:g}", describe_tones(denoiser(hum, strength), vocoder))
        add(f"speech, denoiser {strength:g}", describe([denoiser(wav, strength) for wav in sounds], natural, vocoder))
    for words in args.temperatures:
        values = [float(word) for word in words.split(",")]
        add(f"speech, temperature {words}", describe([synthesise(vocoder, x, values) for x in feats], natural, vocoder))
    return rows


def get_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_file", required=True, help="weights")
    parser.add_argument("--dump", type=Path, required=True, help="folder with feats.scp and wav.scp")
    parser.add_argument("--quick", action="store_true", help="2 s of one utterance, two strengths, no temperatures")
    parser.add_argument("--utterances", type=int, default=4, help="how many")
    parser.add_argument("--seconds", type=float, default=0.0, help="of each at most; 0: all")
    parser.add_argument("--strengths", type=float, nargs="*", default=[0.0, 0.1, 0.5, 1.0], help="of the denoiser")
    parser.add_argument(
        "--temperatures",
        nargs="*",
        default=["0.6", "0.8", "1.0"],
        help="one number, or one for each scale, from the first split on: 0.6,0.8",
    )
    parser.add_argument("--quiet_frames", type=int, default=256, help="frames of the quiet mel")
    parser.add_argument("--threads", type=int, default=2, help="threads")
    return parser


def main() -> None:
    """Print the rows, then the JSON."""
    args = get_parser().parse_args()
    if args.quick:
        args.utterances, args.seconds, args.strengths, args.temperatures = 1, 2.0, [0.0, 1.0], []
    torch.set_num_threads(args.threads)
    print(json.dumps(dict(rows=measure(args))))


if __name__ == "__main__":
    main()
