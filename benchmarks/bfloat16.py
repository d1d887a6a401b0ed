r"""Does training with bfloat16 inside the WaveNets learn as float32 does? Pairs of models are trained both ways.

    python benchmarks/bfloat16.py --data folder/of/16-bit/wavs
    python benchmarks/bfloat16.py --data LJSpeech-1.1/wavs --config conf/train_flowavenet.yaml --frames 62 \
        --batch_size 8 --steps 2000 --seeds 2 --device cuda

A pair starts from the same weights and sees the same segments. How far its loss curves, smoothed over a tenth of the
steps, are apart is set against the noise: how far those of two float32 trainings are whose seeds differ, or which
differ by one part in a million in their features ("nudged"). The last fifth of the clips is held out; models are
judged on it in float32.
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import Any

import numpy as np
import torch
from learning import Clip, add_options, judge, parse, read_clips, settings, split, train


def smooth(losses: list[float]) -> np.ndarray:
    """Return the moving mean of a curve over a tenth of its steps."""
    width = max(len(losses) // 10, 1)
    return np.convolve(losses, np.full(width, 1 / width), mode="valid")


def apart(one: list[float], other: list[float]) -> float:
    """Return how far two curves, smoothed, are apart on average over their second half."""
    difference = np.abs(smooth(one) - smooth(other))
    return float(difference[len(difference) // 2 :].mean())


def nudged(clips: list[Clip]) -> list[Clip]:
    """Change features by one part in a million: what it makes of a training is what rounding does."""
    return [(uid, {**data, "feats": data["feats"] * np.float32(1 + 1e-6)}) for uid, data in clips]


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Train all, compare and judge them."""
    clips, fs = read_clips(args.data)
    known, held_out = split(clips)
    ways = {"float32": (known, None), "nudged": (nudged(known), None), "bfloat16": (known, torch.bfloat16)}
    curves: dict[str, list[list[float]]] = {name: [] for name in ways}
    held: dict[str, list[float]] = {name: [] for name in ways}
    for seed in range(args.seeds):
        for name, (data, dtype) in ways.items():
            model, losses = train(data, fs, args, seed, dtype=dtype)
            curves[name].append(losses)
            held[name].append(judge(model, held_out))
            end = statistics.mean(losses[-max(len(losses) // 5, 1) :])
            print(
                f"seed {seed}, {name:8}: loss of the last fifth {end:.4f}, log-likelihood of held-out clips "
                f"{held[name][-1]:.4f} nats/sample",
                flush=True,
            )
    first = curves["float32"]
    gaps = {name: [apart(a, b) for a, b in zip(first, curves[name], strict=True)] for name in ("bfloat16", "nudged")}
    return dict(
        curves_apart_bfloat16=statistics.mean(gaps["bfloat16"]),
        curves_apart_nudged=statistics.mean(gaps["nudged"]),
        curves_apart_seeds=statistics.mean([apart(first[0], other) for other in first[1:]]) if first[1:] else None,
        **{f"held_out_{name}": values for name, values in held.items()},
        held_out_gain=statistics.mean(b - a for a, b in zip(held["float32"], held["bfloat16"], strict=True)),
        **settings(args, clips),
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    print(json.dumps(measure(parse(parser, 20))))


if __name__ == "__main__":
    main()
