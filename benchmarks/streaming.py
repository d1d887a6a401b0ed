"""Memory and latency of synthesis while features arrive: does an hour take more memory than a minute?

    python benchmarks/streaming.py
    python benchmarks/streaming.py --model_file exp/voc_x/valid.loss.best.pth

Features are drawn while they are asked for (of the training's mean and deviation), and the sound is dropped, so that
nothing but synthesis holds memory. Without --model_file the network has the size of egs/mini's and random weights.
Memory is the process's resident set after each minute of sound. The last line is JSON: bytes, seconds, frames.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from flowavenet_plugin import load_vocoder
from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder


def resident_bytes() -> int:
    """Return the memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def stream(vocoder: FloWaveNetVocoder, args: argparse.Namespace) -> dict[str, object]:
    """Synthesise, and look at the memory after each minute of sound."""
    frames = round(args.seconds * vocoder.fs / vocoder.hop_length)
    arrived = 0

    def features() -> Iterator[Tensor]:
        nonlocal arrived
        generator = torch.Generator().manual_seed(0)
        while arrived < frames:
            count = min(args.piece_frames, frames - arrived)
            arrived += count
            yield vocoder.feats_mean + vocoder.feats_std * torch.randn(count, vocoder.n_mels, generator=generator)

    minute, heard, first, memory = 60 * vocoder.fs, 0, None, []
    start = time.perf_counter()
    dtype = getattr(torch, args.dtype)
    for wav in vocoder.stream(features(), seed=0, dtype=dtype, chunk_frames=args.chunk_frames):
        first = arrived if first is None else first
        heard += len(wav)
        if heard // minute > len(memory):
            memory.append(resident_bytes())
            print(f"{heard / vocoder.fs:6.0f} s of sound: {memory[-1] / 2**20:.1f} MiB", flush=True)
    taken, seconds = time.perf_counter() - start, heard / vocoder.fs
    figures = dict(seconds=seconds, work_seconds=taken, rtf=taken / seconds, frames_before_first_sound=first)
    figures.update(look_ahead=vocoder.look_ahead, chunk_frames=args.chunk_frames, rss_bytes_by_minute=memory)
    if memory:
        figures.update(rss_bytes_after_a_minute=memory[0], rss_bytes_at_the_end=memory[-1])
        figures["growth_bytes"] = memory[-1] - memory[0]
    return figures


def get_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three minutes of sound of a still smaller network")
    parser.add_argument("--model_file", help="weights; default: random ones")
    parser.add_argument("--n_flow", type=int, default=4, help="flow steps per block of the random network")
    parser.add_argument("--filter_size", type=int, default=32, help="its channels")
    parser.add_argument("--seconds", type=float, default=3600.0, help="length of the sound")
    parser.add_argument("--chunk_frames", type=int, default=32, help="frames computed at once")
    parser.add_argument("--piece_frames", type=int, default=10, help="frames that arrive at once")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="inside the WaveNets")
    parser.add_argument("--threads", type=int, default=2, help="threads")
    return parser


def main() -> None:
    """Print the rows, then the JSON."""
    args = get_parser().parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.quick:
        args.seconds, args.n_flow, args.filter_size = min(args.seconds, 180.0), 2, 8
    sizes = dict(n_block=6, n_flow=args.n_flow, filter_size=args.filter_size, block_per_split=3)
    vocoder = (
        load_vocoder(args.model_file, refine=0)
        if args.model_file
        else FloWaveNetVocoder(22050, 256, 80, **sizes).eval()
    )
    vocoder.for_inference(getattr(torch, args.dtype))
    print(json.dumps(stream(vocoder, args)))


if __name__ == "__main__":
    main()
