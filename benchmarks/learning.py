"""What benchmarks of learning share: real clips, a small model in training, and its judgement on clips it never saw."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import yaml

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


def split(clips: list[Clip]) -> tuple[list[Clip], list[Clip]]:
    """Hold out the last fifth: clips to train on, clips to judge by."""
    held_out = max(len(clips) // 5, 1)
    return clips[:-held_out], clips[-held_out:]


def train(
    clips: list[Clip],
    fs: int,
    args: argparse.Namespace,
    seed: int,
    dequantize: bool = False,
    dtype: torch.dtype | None = None,
) -> tuple[ESPnetVocoderModel, list[float]]:
    """Train a model; one seed gives one start and one order of segments.

    Args:
        clips: To train on.
        fs: Their sampling rate in Hz.
        args: The benchmark's options, see :func:`add_options`.
        seed: Of weights, order and segments.
        dequantize: Add noise within a quantisation step.
        dtype: Of the WaveNets (autocast); None: float32 throughout.

    Returns:
        The model, in evaluation mode, and the loss of each step in nats per sample.
    """
    torch.manual_seed(seed)
    np.random.seed(seed)
    conf = SIZES if args.config is None else yaml.safe_load(args.config.read_text()).get("vocoder_conf", {})
    model = ESPnetVocoderModel(FloWaveNetVocoder(fs, HOP, N_MELS, **conf))
    feats = torch.from_numpy(np.concatenate([data["feats"] for _, data in clips]))
    model.vocoder.set_feats_stats(feats.mean(0), feats.std(0))
    model.to(args.device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    collate = SegmentCollate(HOP, args.frames, train=True, dequantize=dequantize)
    order = np.random.default_rng(seed)
    losses = []
    for _ in range(args.steps):
        _, batch = collate([clips[i] for i in order.integers(len(clips), size=args.batch_size)])
        with torch.autocast(args.device, dtype or torch.bfloat16, enabled=dtype is not None):
            loss, _, _ = model(**{name: value.to(args.device) for name, value in batch.items()})
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    return model.eval(), torch.cat(losses).tolist()


@torch.no_grad()
def judge(model: ESPnetVocoderModel, clips: list[Clip]) -> float:
    """Return the mean log-likelihood of clips, the first two seconds of each, in nats per sample, in float32."""
    _, batch = SegmentCollate(HOP, 2 * model.vocoder.fs // HOP, train=False)(clips)
    device = model.vocoder.feats_mean.device
    return float(model(**{name: value.to(device) for name, value in batch.items()})[1]["log_likelihood"])


def settings(args: argparse.Namespace, clips: list[Clip]) -> dict[str, Any]:
    """Return what a figure depends on."""
    held_out = len(split(clips)[1])
    return dict(
        steps=args.steps,
        seeds=args.seeds,
        clips=len(clips) - held_out,
        held_out=held_out,
        batch_size=args.batch_size,
        segment_length=args.frames * HOP,
        sizes=SIZES if args.config is None else args.config.name,
        device=torch.cuda.get_device_name() if args.device == "cuda" else args.device,
        torch=torch.__version__,
        threads=torch.get_num_threads(),
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that :func:`train` and :func:`settings` read."""
    parser.add_argument("--quick", action="store_true", help="less than a minute on two cores: one pair, few steps")
    parser.add_argument("--data", type=Path, required=True, help="folder with 16-bit wav files of one channel")
    parser.add_argument(
        "--config", type=Path, help="training configuration whose vocoder_conf is used, else a tiny one"
    )
    parser.add_argument("--steps", type=int, default=400, help="training steps (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=2, help="pairs of trainings (default %(default)s)")
    parser.add_argument("--batch_size", type=int, default=4, help="segments per step (default %(default)s)")
    parser.add_argument("--frames", type=int, default=16, help="frames of 256 samples in a segment")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")


def parse(parser: argparse.ArgumentParser, quick_steps: int) -> argparse.Namespace:
    """Read the options; --quick means one pair, and so many steps at most."""
    args = parser.parse_args()
    if args.quick:
        args.steps, args.seeds = min(args.steps, quick_steps), 1
    return args
