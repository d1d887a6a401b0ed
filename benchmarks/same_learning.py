"""Does our network learn as the original does? Both are trained from the same weights with the same crops.

    git clone https://github.com/ksw0306/FloWaveNet /path/of/clone
    python benchmarks/same_learning.py --original /path/of/clone --data folder/of/wavs

A small network (the original's width, fewer blocks and flows), the original's loss, Adam 1e-3 and gradient clipping at
1. ActNorm starts from the first batch, and the original gets the weights after that. Prints both losses and how far
they are apart, and draws them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from matplotlib.figure import Figure
from original import FIXED, build_original, copy_weights, original_log_likelihood
from torch import Tensor, nn

from flowavenet_plugin.data.features import build_feats_extract, extract
from flowavenet_plugin.flow import FloWaveNet

HOP = 256
SIZES = dict(n_mels=80, n_block=3, n_flow=2, n_layer=2, block_per_split=2)
Batch = tuple[Tensor, Tensor]


def read_clips(folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Read audio (samples,) and the original's mel features (frames, 80) of every wav file below a folder.

    Raises:
        ValueError: If there is none.
    """
    paths = sorted(folder.rglob("*.wav"))
    if not paths:
        raise ValueError(f"no wav file below {folder}")
    clips = []
    for path in paths:
        wav, fs = soundfile.read(path, dtype="float32")
        clips.append(extract(build_feats_extract("original", dict(fs=fs)), wav, fs, path.stem))
    return clips


def crops(
    clips: list[tuple[np.ndarray, np.ndarray]], batch: int, frames: int, dtype: torch.dtype, seed: int = 0
) -> Iterator[Batch]:
    """Give endless batches: audio (B, 1, frames * 256) and conditioning (B, 80, frames)."""
    rng = np.random.default_rng(seed)
    while True:
        audio, mels = [], []
        for index in rng.integers(len(clips), size=batch):
            wav, feats = clips[index]
            start = rng.integers(len(feats) - frames)
            audio.append(wav[start * HOP : (start + frames) * HOP])
            mels.append(feats[start : start + frames].T)
        yield torch.from_numpy(np.stack(audio))[:, None].to(dtype), torch.from_numpy(np.stack(mels)).to(dtype)


class Learner:
    """A network in training as the original's train.py does it."""

    def __init__(self, net: nn.Module, log_likelihood: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> None:
        self.net = net.train()
        self.log_likelihood = log_likelihood
        self.optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
        self.losses: list[float] = []
        self.seconds = 0.0

    def step(self, x: Tensor, cond: Tensor) -> None:
        """Learn from a batch."""
        start = time.perf_counter()
        self.optimizer.zero_grad()
        loss = -self.log_likelihood(self.net, x, cond)
        loss.backward()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimizer.step()
        self.losses.append(loss.item())
        self.seconds += time.perf_counter() - start


def our_log_likelihood(flow: nn.Module, x: Tensor, cond: Tensor) -> Tensor:
    """Return our network's log-likelihood of a batch in nats per sample, 0-dim."""
    return flow.log_likelihood(x, cond).mean()


def learn(clone: Path, batches: Iterator[Batch], steps: int, dtype: torch.dtype) -> tuple[Learner, Learner]:
    """Train our network and the original, in turn; returns both."""
    torch.manual_seed(0)
    flow = FloWaveNet(**SIZES, **FIXED).to(dtype).train()
    with torch.no_grad():
        flow(*next(batches))  # ActNorm's start
    original = build_original(clone, **SIZES).to(dtype)
    copy_weights(flow, original)
    ours, theirs = Learner(flow, our_log_likelihood), Learner(original, original_log_likelihood)
    for step in range(1, steps + 1):
        x, cond = next(batches)
        ours.step(x, cond)
        theirs.step(x, cond)
        if step % 20 == 0:
            print(f"step {step:4}: loss {ours.losses[-1]:8.4f} (original {theirs.losses[-1]:8.4f})", flush=True)
    return ours, theirs


def summarise(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """Return how far the losses are from each other, in nats per sample."""
    a, b = np.array(ours), np.array(theirs)
    apart = np.abs(a - b)
    last = max(len(a) // 5, 1)
    return dict(
        largest_difference=float(apart.max()),
        mean_difference=float(apart.mean()),
        difference_of_first_100=float(apart[:100].max()),
        mean_loss_of_last_fifth=float(a[-last:].mean()),
        mean_loss_of_last_fifth_original=float(b[-last:].mean()),
        first_loss=float(a[0]),
        first_loss_original=float(b[0]),
    )


def draw(ours: list[float], theirs: list[float]) -> Figure:
    """Draw both curves, and below how far they are apart."""
    figure = Figure(figsize=(7, 5), dpi=110, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    steps = np.arange(1, len(ours) + 1)
    above.plot(steps, theirs, color="tab:orange", linewidth=3, alpha=0.5, label="original code")
    above.plot(steps, ours, color="tab:blue", linewidth=1, label="this project")
    above.set_ylabel("loss in nats/sample")
    above.set_title("the same weights, the same crops", loc="left", fontsize="medium")
    above.legend(frameon=False)
    below.semilogy(steps, np.maximum(np.abs(np.array(ours) - np.array(theirs)), 1e-9), color="tab:grey", linewidth=1)
    below.set_ylabel("difference")
    below.set_xlabel("step")
    return figure


def get_arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a minute on two cores: 20 steps")
    parser.add_argument("--original", type=Path, required=True, help="clone of github.com/ksw0306/FloWaveNet")
    parser.add_argument("--data", type=Path, required=True, help="folder with wav files, one channel, of one rate")
    parser.add_argument("--steps", type=int, default=200, help="training steps")
    parser.add_argument("--batch_size", type=int, default=2, help="crops per step")
    parser.add_argument("--frames", type=int, default=2, help="frames of 256 samples in a crop")
    parser.add_argument(
        "--dtype",
        choices=["float32", "float64"],
        default="float64",
        help="float32 rounds differently in the two, and training makes any difference grow",
    )
    parser.add_argument("--picture", type=Path, help="PNG to write")
    return parser


def main() -> None:
    """Train, print and draw."""
    args = get_arguments().parse_args()
    steps = min(args.steps, 20) if args.quick else args.steps
    dtype = getattr(torch, args.dtype)
    batches = crops(clips := read_clips(args.data), args.batch_size, args.frames, dtype)
    ours, theirs = learn(args.original, batches, steps, dtype)
    result = summarise(ours.losses, theirs.losses)
    if args.picture is not None:
        draw(ours.losses, theirs.losses).savefig(args.picture)
    print(f"largest difference in {steps} steps: {result['largest_difference']:.2e} nats/sample")
    settings = dict(
        steps=steps, dtype=args.dtype, clips=len(clips), batch_size=args.batch_size, samples=args.frames * HOP, **SIZES
    )
    times = dict(seconds=ours.seconds, seconds_original=theirs.seconds)
    versions = dict(torch=torch.__version__, threads=torch.get_num_threads())
    print(json.dumps({**result, **times, **settings, **versions}))


if __name__ == "__main__":
    main()
