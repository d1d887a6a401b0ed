"""Who should multiply on this processor? Synthesis by compiled functions against PyTorch's libraries, per preset.

    python benchmarks/processors.py --threads 2
    python benchmarks/processors.py --presets flowavenet --march native x86-64-v3

Each preset's flow with random weights speaks an utterance in each way, in turns; medians count. Ways: "compiled" and
"libraries" in bfloat16 (what FLOWAVENET_BFLOAT16 chooses between), compiled functions in float32, and for every --march
the compiled functions for these instructions (FLOWAVENET_MARCH). Real-time factors are seconds of work per second of
speech. The first line names the processor, and says what would be chosen here; the last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

import torch
from family_rows import PRESETS, options
from torch import Tensor

from flowavenet_plugin.flow.synthesis import PreparedFlow
from flowavenet_plugin.kernels import choices, compiled
from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder

FS, HOP, N_MELS = 22050, 256, 80
#: Precision and what chooses the ways.
WAYS = {
    "float32": (torch.float32, {}),
    "bfloat16_compiled": (torch.bfloat16, {choices.BFLOAT16: "compiled"}),
    "bfloat16_libraries": (torch.bfloat16, {choices.BFLOAT16: "libraries"}),
}


def processor() -> dict[str, object]:
    """Name the processor, and what bears on the choice."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    known = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    known = {key.strip(): value.strip() for key, value in known.items()}
    flags = set(known.get("flags", known.get("Features", "")).split())
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "bf16", "sve")
    return dict(
        processor=known.get("model name", platform.processor() or platform.machine()),
        model=" ".join(f"{key} {known[key]}" for key in ("cpu family", "model", "stepping") if key in known),
        flags=[flag for flag in wanted if flag in flags],
        compiled=compiled.functions() is not None,
        bfloat16="compiled" if choices.wants_compiled_products(torch.bfloat16) else "libraries",
    )


def choose(setting: dict[str, str]) -> None:
    """Choose a way for all flows that are prepared from now on, and for what they call."""
    for name in (choices.BFLOAT16, choices.MARCH):
        os.environ.pop(name, None)
    os.environ.update(setting)
    compiled.functions.cache_clear()


def seconds(way: tuple[torch.dtype, dict[str, str]], flow: PreparedFlow, noise: Tensor, cond: Tensor) -> float:
    """Return what one synthesis takes."""
    choose(way[1])
    start = time.perf_counter()
    flow.inverse(noise, cond)
    return time.perf_counter() - start


@torch.no_grad()
def measure(
    preset: str, ways: dict[str, tuple[torch.dtype, dict[str, str]]], args: argparse.Namespace
) -> dict[str, float]:
    """Return the real-time factor of each way."""
    torch.manual_seed(0)
    flow = FloWaveNetVocoder(FS, HOP, N_MELS, **options(preset)).eval().flow
    frames = max(1, round(args.seconds * FS / HOP))
    noise, cond = torch.randn(1, 1, frames * HOP), torch.randn(1, N_MELS, frames)
    prepared = {}
    for name, (dtype, setting) in ways.items():
        choose(setting)
        prepared[name] = PreparedFlow(flow, dtype)
        seconds(ways[name], prepared[name], noise, cond)  # buffers and threads are there afterwards
    turns = [
        {name: seconds(way, prepared[name], noise, cond) for name, way in ways.items()} for _ in range(args.repeats)
    ]
    return {name: statistics.median(turn[name] for turn in turns) / (frames * HOP / FS) for name in ways}


def get_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="*", default=list(PRESETS), choices=list(PRESETS), help="only these")
    parser.add_argument("--march", nargs="*", default=[], help="instructions to compile for, beside what is there")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of the utterance")
    parser.add_argument("--repeats", type=int, default=5, help="turns")
    parser.add_argument("--threads", type=int, default=2, help="threads")
    parser.add_argument("--quick", action="store_true", help="a short utterance, one turn, the small preset")
    return parser


def main() -> None:
    """Print a line per preset and way, then the JSON."""
    args = get_parser().parse_args()
    if args.quick:
        args.seconds, args.repeats, args.presets = min(args.seconds, 0.2), 1, ["flowavenet_small"]
    torch.set_num_threads(args.threads)
    figures: dict[str, object] = dict(**processor(), threads=args.threads, torch=torch.__version__)
    print(", ".join(f"{key} {value}" for key, value in figures.items()), flush=True)
    ways = dict(WAYS)
    for march in args.march:
        for name in ("float32", "bfloat16_compiled"):
            dtype, setting = WAYS[name]
            ways[f"{name}_{march}"] = dtype, {**setting, choices.MARCH: march}
    figures["rtf"] = {preset: measure(preset, ways, args) for preset in args.presets}
    for preset, factors in figures["rtf"].items():
        for name, factor in factors.items():
            print(f"{preset:17s} {name:32s} real-time factor {factor:.4f}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
