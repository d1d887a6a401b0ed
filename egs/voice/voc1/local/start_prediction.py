#!/usr/bin/env python3
"""Fit a model's linear prediction in closed form, before its training: minutes of gradient descent in seconds.

The prediction's network starts as the regression of each block's log-spectrum on its features: least squares, with
Euler's constant added, by which the logarithm of a periodogram is too low. Writes config.yaml and model.pth, for
run.sh --resume.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch
import yaml
from torch import Tensor

from flowavenet_plugin.data.scp import open_feats, read_audio, read_scp
from flowavenet_plugin.flow.prediction import LinearPrediction
from flowavenet_plugin.flow.prediction_matrices import BINS
from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder
from flowavenet_plugin.vocoder.loading import save_vocoder, vocoder_from_config

EULER = 0.5772
N_FFT = 1024
#: Weight of the penalty on the regression's coefficients, per block.
RIDGE = 1e-3


def log_spectra(wav: Tensor, prediction: LinearPrediction, frames: int) -> Tensor:
    """Return the natural log of the power per sample around each block's middle, shape (frames * blocks, BINS)."""
    window = torch.hann_window(N_FFT)
    size = frames * prediction.hop_length
    before = N_FFT // 2 - prediction.block // 2  # windows are centred on the blocks
    padded = torch.nn.functional.pad(wav, (before, N_FFT + size - len(wav)))
    pieces = padded.unfold(0, N_FFT, prediction.block)[: frames * prediction.blocks]
    power = torch.fft.rfft(pieces * window).abs().square() / window.square().sum()
    return power[:, :: N_FFT // 2 // (BINS - 1)].clamp(min=1e-9).log() + EULER


def contexts(feats: Tensor, cond: Tensor) -> tuple[Tensor, Tensor]:
    """Return the frames after, (frames, n_mels), and what the network reads of each frame, (frames, 3 * n_mels)."""
    before, after = torch.cat([cond[:1], cond[:-1]]), torch.cat([cond[1:], cond[-1:]])
    return torch.cat([feats[1:], feats[-1:]]), torch.cat([before, cond, after], dim=1)


@torch.no_grad()
def fit(vocoder: AbsVocoder, wavs: dict[str, str], feats_scp: Path, num: int) -> None:
    """Fit the prediction to ``num`` utterances, evenly chosen."""
    prediction, feats_of = vocoder.prediction, open_feats(feats_scp)
    width = 3 * vocoder.n_mels + 1
    gram = torch.zeros(width, width, dtype=torch.float64)
    moments = torch.zeros(width, prediction.blocks * BINS, dtype=torch.float64)
    chosen = list(wavs)[:: max(1, len(wavs) // num)]
    count = 0
    for utt in chosen:
        feats = torch.from_numpy(feats_of[utt].copy())
        following, context = contexts(feats, vocoder.normalize(feats))
        target = log_spectra(torch.from_numpy(read_audio(wavs[utt], utt)[0]).float(), prediction, len(feats))
        places = ((torch.arange(prediction.blocks) + 0.5) / prediction.blocks)[:, None]
        base = torch.lerp(feats[:, None], following[:, None], places) @ prediction._bands
        rest = (target.view(len(feats), prediction.blocks, BINS) - base).flatten(1).double()
        rows = torch.cat([context, torch.ones(len(feats), 1)], dim=1).double()
        gram += rows.T @ rows
        moments += rows.T @ rest
        count += len(feats)
    penalty = RIDGE * count * torch.eye(width, dtype=torch.float64)
    penalty[-1, -1] = 0.0
    solved = torch.linalg.solve(gram + penalty, moments).float()
    prediction.out.weight[:, -(width - 1) :] = solved[:-1].T
    prediction.out.bias.copy_(solved[-1])
    print(f"{len(chosen)} utterances, {count} frames", file=sys.stderr)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--train_config", type=Path, required=True, help="configuration of the training")
    parser.add_argument("--dump_dir", type=Path, required=True, help="the training set's folder of stage 1")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for config.yaml and model.pth")
    parser.add_argument("--num", type=int, default=300, help="utterances to fit to")
    args = parser.parse_args()
    try:
        config = yaml.safe_load(args.train_config.read_text(encoding="utf-8"))
        settings = yaml.safe_load((args.dump_dir / "feats_extract.yaml").read_text(encoding="utf-8"))
        config = {key: config[key] for key in ("vocoder", "vocoder_conf")} | settings
        vocoder = vocoder_from_config(config, args.train_config)
        if getattr(vocoder, "prediction", None) is None:
            raise ValueError(f"{args.train_config} has no prediction_order: there is nothing to start")
        with np.load(args.dump_dir / "feats_stats.npz") as stats:
            mean = stats["sum"] / stats["count"]
            variance = stats["sum_square"] / stats["count"] - mean**2
        vocoder.set_feats_stats(torch.from_numpy(mean), torch.from_numpy(np.sqrt(np.maximum(variance, 0.0))))
        fit(vocoder, read_scp(args.dump_dir / "wav.scp"), args.dump_dir / "feats.scp", args.num)
        print(save_vocoder(vocoder, config, args.output_dir))
    except (ValueError, OSError) as error:
        sys.exit(f"start_prediction: error: {error}")


if __name__ == "__main__":
    main()
