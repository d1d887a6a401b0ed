"""Does dequantisation noise help? Small models are trained with and without it, and judged on clips they never saw.

    python benchmarks/dequantization.py --data folder/of/16-bit/wavs

Pairs start from the same weights and see the same segments. The last fifth of the clips is held out; its log-likelihood
is that of the audio as it is, without noise.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from flowavenet_plugin.data.features import build_feats_extract, extract
from flowavenet_plugin.tasks.espnet_model import ESPnetVocoderModel
from flowavenet_plugin.tasks.segments import SegmentCollate
from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder

HOP, N_MELS = 256, 80
SIZES = dict(n_block=6, n_flow=2, filter_size=16, block_per_split=3)
Clip = tuple[str, dict[str, np.ndarray]]


def read_clips(folder: Path) -> tuple[list[Clip], int]:
    """Read the clips below a folder with ESPnet2's features; returns them and their sampling rate in Hz.

    Raises:
        ValueError: If there are less than five.
    """
    clips, fs = [], 0
    for path in sorted(folder.rglob("*.wav")):
        wav, fs = soundfile.read(path, dtype="float32")
        speech, feats = extract(build_feats_extract("fbank", dict(fs=fs)), wav, fs, path.stem)
        clips.append((path.stem, dict(speech=speech, feats=feats)))
    if len(clips) < 5:
        raise ValueError(f"{len(clips)} wav files below {folder}, at least 5 are needed")
    return clips, fs


def train(clips: list[Clip], fs: int, dequantize: bool, args: argparse.Namespace, seed: int) -> ESPnetVocoderModel:
    """Train a small model."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    model = ESPnetVocoderModel(FloWaveNetVocoder(fs, HOP, N_MELS, **SIZES), dequantize)
    feats = torch.from_numpy(np.concatenate([data["feats"] for _, data in clips]))
    model.vocoder.set_feats_stats(feats.mean(0), feats.std(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    collate = SegmentCollate(HOP, args.frames, train=True)
    order = np.random.default_rng(seed)
    model.train()
    for _ in range(args.steps):
        _, batch = collate([clips[i] for i in order.integers(len(clips), size=args.batch_size)])
        loss, _, _ = model(**batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return model.eval()


@torch.no_grad()
def judge(model: ESPnetVocoderModel, clips: list[Clip]) -> float:
    """Return the mean log-likelihood of clips, the first two seconds of each, in nats per sample."""
    _, batch = SegmentCollate(HOP, 2 * model.vocoder.fs // HOP, train=False)(clips)
    return float(model(**batch)[1]["log_likelihood"])


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Train all pairs and judge them."""
    clips, fs = read_clips(args.data)
    held_out = max(len(clips) // 5, 1)
    figures: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(args.seeds):
        for dequantize in (False, True):
            figures[dequantize].append(judge(train(clips[:-held_out], fs, dequantize, args, seed), clips[-held_out:]))
        print(f"seed {seed}: without {figures[False][-1]:.4f}, with {figures[True][-1]:.4f} nats/sample", flush=True)
    gains = [b - a for a, b in zip(figures[False], figures[True], strict=True)]
    return dict(
        log_likelihood_without=statistics.mean(figures[False]),
        log_likelihood_with=statistics.mean(figures[True]),
        gain=statistics.mean(gains),
        gains=gains,
        steps=args.steps,
        clips=len(clips) - held_out,
        held_out=held_out,
        batch_size=args.batch_size,
        segment_length=args.frames * HOP,
        **SIZES,
        torch=torch.__version__,
        threads=torch.get_num_threads(),
    )


def get_arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a minute on two cores: one pair, 60 steps")
    parser.add_argument("--data", type=Path, required=True, help="folder with 16-bit wav files of one channel")
    parser.add_argument("--steps", type=int, default=400, help="training steps")
    parser.add_argument("--seeds", type=int, default=2, help="pairs of trainings")
    parser.add_argument("--batch_size", type=int, default=4, help="segments per step")
    parser.add_argument("--frames", type=int, default=16, help="frames of 256 samples in a segment")
    return parser


def main() -> None:
    """Measure and print."""
    args = get_arguments().parse_args()
    if args.quick:
        args.steps, args.seeds = min(args.steps, 60), 1
    print(json.dumps(measure(args)))


if __name__ == "__main__":
    main()
