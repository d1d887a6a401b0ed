"""Is the loader ever the bottleneck? Time per batch of training segments against the time of a training step.

    python benchmarks/loader.py --quick
    python benchmarks/loader.py --config conf/train_flowavenet.yaml --device cuda

Clips of noise (16-bit, 22.05 kHz) and their features are written to a temporary folder and read through ESPnet2's own
iterator, as in training: with and without a cache in memory (--max_cache_size), in the trainer's process and in
workers.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from espnet2.train.distributed_utils import DistributedOption

from flowavenet_plugin.bin.vocoder_train import get_parser
from flowavenet_plugin.data.features import build_feats_extract, extract
from flowavenet_plugin.data.scp import ArkWriter, write_scp
from flowavenet_plugin.tasks.vocoder import VocoderTask

ROOT = Path(__file__).resolve().parent.parent
FS = 22050


def make_clips(folder: Path, count: int, seconds: float) -> None:
    """Write ``count`` clips and what stage 1 makes of them."""
    extractor = build_feats_extract("fbank", dict(fs=FS))
    rng = np.random.default_rng(0)
    wavs, samples = {}, {}
    with ArkWriter(folder / "feats.ark", folder / "feats.scp") as writer:
        for i in range(count):
            uid = f"clip{i:05d}"
            wav = 0.1 * rng.standard_normal(int(FS * seconds * rng.uniform(0.5, 1.5)), dtype=np.float32)
            wavs[uid], samples[uid] = folder / f"{uid}.wav", len(wav)
            soundfile.write(wavs[uid], wav, FS, subtype="PCM_16")
            writer[uid] = extract(extractor, wav, FS, uid)[1]
    write_scp(folder / "wav.scp", wavs)
    write_scp(folder / "utt2num_samples", samples)


def training_args(folder: Path, config: Path, **options: object) -> argparse.Namespace:
    """Return the options of a training on the clips."""
    command = ["--config", str(config), "--output_dir", str(folder / "exp")]
    command += ["--train_data_path_and_name_and_type", f"{folder}/wav.scp,speech,sound"]
    command += ["--train_data_path_and_name_and_type", f"{folder}/feats.scp,feats,kaldi_ark"]
    command += ["--train_shape_file", f"{folder}/utt2num_samples"]
    for key, value in options.items():
        command += [f"--{key}", str(value)]
    return get_parser().parse_args(command)


class Loader:
    """One way to load, over as many epochs as are asked for."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.factory = VocoderTask.build_iter_factory(args, DistributedOption(), "train")
        self.epochs = 0

    def seconds_per_batch(self) -> float:
        """Load an epoch; the first batch, which starts the workers, isn't counted."""
        self.epochs += 1
        batches = iter(self.factory.build_iter(self.epochs))
        next(batches)
        start = time.perf_counter()
        count = sum(1 for _ in batches)
        return (time.perf_counter() - start) / count

    def batch(self) -> dict[str, Any]:
        """Return a batch."""
        return next(iter(self.factory.build_iter(1)))[1]


def step_times(args: argparse.Namespace, batch: dict[str, Any], device: str) -> Iterator[float]:
    """Give the seconds of one training step after the other."""
    model = VocoderTask.build_model(args).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    batch = {key: value.to(device) for key, value in batch.items()}
    while True:
        start = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=args.use_amp):
            loss, _, _ = model(**batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if device == "cuda":
            torch.cuda.synchronize()
        yield time.perf_counter() - start


def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure all ways to load, and the step, in turn."""
    make_clips(folder, args.clips, args.seconds)
    base = dict(batch_size=args.batch_size, num_iters_per_epoch=args.batches)
    ways = {
        "in_process": dict(num_workers=0),
        "in_process_cached": dict(num_workers=0, max_cache_size="20GB"),
        "workers": dict(num_workers=args.num_workers),
        "workers_cached": dict(num_workers=args.num_workers, max_cache_size="20GB"),
    }
    loaders = {name: Loader(training_args(folder, args.config, **base, **way)) for name, way in ways.items()}
    options = training_args(folder, args.config, **base)
    steps = step_times(options, loaders["in_process"].batch(), args.device)
    next(steps)  # starts ActNorm, fills caches
    times: dict[str, list[float]] = {name: [] for name in (*loaders, "step")}
    for loader in loaders.values():
        loader.seconds_per_batch()  # fills its cache
    for _ in range(args.rounds):
        for name, loader in loaders.items():
            times[name].append(loader.seconds_per_batch())
        times["step"].append(next(steps))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        **{f"{name}_seconds": value for name, value in medians.items()},
        **{f"{name}_ratio": medians[name] / medians["step"] for name in loaders},
        "batch_size": options.batch_size,
        "segment_length": options.segment_length,
        "num_workers": args.num_workers,
        "clips": args.clips,
        "config": args.config.name,
        "device": args.device,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }


def get_arguments() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a minute on two cores: fewer, smaller batches")
    config = ROOT / "conf/train_flowavenet_quarter.yaml"
    parser.add_argument("--config", type=Path, default=config, help="of a training")
    parser.add_argument("--batch_size", type=int, default=8, help="segments per batch")
    parser.add_argument("--batches", type=int, default=60, help="batches per measurement")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each kind, in turn; the median counts")
    parser.add_argument("--num_workers", type=int, default=2, help="processes that load")
    parser.add_argument("--clips", type=int, default=200, help="clips to write")
    parser.add_argument("--seconds", type=float, default=6.6, help="their mean length; LJSpeech's is 6.6")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="of the step")
    return parser


def main() -> None:
    """Measure and print."""
    args = get_arguments().parse_args()
    if args.quick:
        args.batch_size, args.batches, args.rounds, args.clips = min(args.batch_size, 2), 30, 3, 60
    with tempfile.TemporaryDirectory() as folder:
        result = measure(args, Path(folder))
    for name in ("in_process", "in_process_cached", "workers", "workers_cached"):
        milliseconds, share = 1000 * result[f"{name}_seconds"], 100 * result[f"{name}_ratio"]
        print(f"{name:18} {milliseconds:8.2f} ms per batch of {result['batch_size']}, {share:6.2f} % of a step")
    print(f"{'step':18} {1000 * result['step_seconds']:8.2f} ms ({result['config']}, {result['device']})")
    sys.stdout.flush()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
