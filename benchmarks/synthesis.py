"""Time, memory and precision of synthesis: ours, the original code's, and what users would pick instead.

    python benchmarks/synthesis.py --original /path/of/a/clone/of/github.com/ksw0306/FloWaveNet

Systems run in processes of their own and take turns on the same features; medians count. "original" and ours have the
same weights. "hifigan" is ESPnet2's HiFi-GAN v1 generator with random weights, "griffin_lim" takes 64 iterations from
the linear spectrum. Peak memory is that of fresh processes that load a model and synthesise once. Real-time factors are
seconds of work per second of speech. The last line is JSON; times are in seconds, memory in bytes.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable

import torch
from original import FIXED, build_original, copy_weights, couple
from torch import Tensor
from worker import Worker

from flowavenet_plugin.flow import FloWaveNet
from flowavenet_plugin.flow.prepared import PreparedFlow

FS, HOP, N_MELS = 22050, 256, 80
TEMPERATURE = 0.8
#: About the standard deviation of what the couplings predict: near the identity, usual, strong.
STRENGTHS = (0.02, 0.1, 0.3)
OURS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def build_flow(args: argparse.Namespace, strength: float = 0.1) -> FloWaveNet:
    """Return our network with weights as after training."""
    torch.manual_seed(0)
    sizes = dict(n_mels=N_MELS, n_block=args.n_block, n_flow=args.n_flow, n_layer=2, block_per_split=4)
    flow = FloWaveNet(**sizes, **{**FIXED, "filter_size": args.filter_size}).eval()
    couple(flow, strength)
    return flow


def inputs(seconds: float, device: str) -> tuple[Tensor, Tensor]:
    """Return noise (1, 1, T) and conditioning (1, n_mels, frames), the same in every process."""
    generator = torch.Generator().manual_seed(1)
    frames = max(1, round(seconds * FS / HOP))
    noise = TEMPERATURE * torch.randn(1, 1, frames * HOP, generator=generator)
    return noise.to(device), torch.randn(1, N_MELS, frames, generator=generator).to(device)


@torch.no_grad()
def system(name: str, args: argparse.Namespace, same_weights: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a function from noise and conditioning to audio."""
    if name in OURS:
        prepared = PreparedFlow(build_flow(args).to(args.device), OURS[name])
        return prepared.inverse
    if name == "original":
        sizes = dict(n_mels=N_MELS, n_block=args.n_block, n_flow=args.n_flow, n_layer=2, block_per_split=4)
        original = build_original(args.original, **sizes).eval()
        if same_weights:
            copy_weights(build_flow(args), original)
        return original.to(args.device).reverse
    if name == "hifigan":
        from espnet2.gan_tts.hifigan import HiFiGANGenerator

        generator = HiFiGANGenerator(
            in_channels=N_MELS, channels=512, upsample_scales=(8, 8, 2, 2), upsample_kernel_sizes=(16, 16, 4, 4)
        )
        generator.remove_weight_norm()
        generator = generator.eval().to(args.device)
        return lambda noise, cond: generator(cond)
    from torchaudio.transforms import GriffinLim

    griffin_lim = GriffinLim(n_fft=1024, hop_length=HOP, n_iter=64, power=1.0).to(args.device)
    spectrum = torch.rand(1, 513, 1, device=args.device)
    return lambda noise, cond: griffin_lim(spectrum.expand(1, 513, cond.shape[2]))


def work(name: str, args: argparse.Namespace) -> None:
    """Synthesise once per line of the input; answer with seconds and the peak memory of the process so far."""
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    run = system(name, args, same_weights=args.same_weights)
    noise, cond = inputs(args.seconds, args.device)
    for _ in sys.stdin:
        start = time.perf_counter()
        run(noise, cond).sum().item()  # waits for the device
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(dict(seconds=seconds, peak_rss_bytes=peak)), flush=True)


def start(name: str, args: argparse.Namespace, seconds: float, same_weights: bool) -> Worker:
    """Start a system in a process of its own."""
    options = ("threads", "n_block", "n_flow", "filter_size", "device", "original")
    given = {option: getattr(args, option) for option in options}
    return Worker(name, __file__, dict(given, seconds=seconds, same_weights=same_weights or None))


def times(names: list[str], args: argparse.Namespace) -> dict[str, float]:
    """Return the median seconds of each system for one utterance; the first run of each isn't counted."""
    workers = [start(name, args, args.seconds, same_weights=True) for name in names]
    try:
        for worker in workers:
            worker.ask()
        turns = [[worker.ask()["seconds"] for worker in workers] for _ in range(args.repeats)]
    finally:
        for worker in workers:
            worker.close()
    return dict(zip(names, map(statistics.median, zip(*turns, strict=True)), strict=True))


def peak_memory(name: str, args: argparse.Namespace, seconds: float) -> float:
    """Return the peak memory of a fresh process that synthesises one utterance."""
    worker = start(name, args, seconds, same_weights=False)
    try:
        return worker.ask()["peak_rss_bytes"]
    finally:
        worker.close()


@torch.no_grad()
def precision(args: argparse.Namespace, strength: float) -> dict[str, float]:
    """Return SNR (dB) and log-spectral distance (dB) of our float32 and bfloat16 to float64."""
    noise, cond = inputs(args.precision_seconds, args.device)
    flow = build_flow(args, strength).to(args.device)
    outs = {name: PreparedFlow(flow, dtype).inverse(noise, cond).double()[0, 0] for name, dtype in OURS.items()}
    exact = PreparedFlow(flow.double()).inverse(noise.double(), cond.double())[0, 0]
    figures: dict[str, float] = dict(strength=strength)
    for name, out in outs.items():
        figures[f"{name}_snr"] = 10 * torch.log10(exact.square().sum() / (out - exact).square().sum()).item()
        figures[f"{name}_lsd"] = log_spectral_distance(out, exact)
    return figures


def log_spectral_distance(x: Tensor, y: Tensor) -> float:
    """Return the mean over frames of the root mean square over bins of the difference of log power spectra, in dB."""
    window = torch.hann_window(1024, dtype=x.dtype, device=x.device)
    spectra = [torch.stft(wav, 1024, 256, window=window, return_complex=True).abs().clamp(min=1e-8) for wav in (x, y)]
    difference = 20 * torch.log10(spectra[0] / spectra[1])
    return difference.square().mean(dim=0).sqrt().mean().item()


def measure(args: argparse.Namespace) -> dict[str, object]:
    """Measure all that is asked for."""
    names = [*(["original"] if args.original else []), *OURS, "hifigan", "griffin_lim"]
    spoken = max(1, round(args.seconds * FS / HOP)) * HOP / FS
    seconds = times(names, args)
    figures: dict[str, object] = dict(utterance_seconds=spoken, threads=args.threads, torch=torch.__version__)
    figures["seconds"] = seconds
    for name, value in seconds.items():
        figures[f"{name}_rtf"] = value / spoken
        print(f"{name:12s} {value:8.2f} s, real-time factor {value / spoken:.3f}", flush=True)
    memory = {name: peak_memory(name, args, args.seconds) for name in names if name in ("original", *OURS)}
    if args.long_seconds:
        memory["bfloat16_long"] = peak_memory("bfloat16", args, args.long_seconds)
        figures["long_seconds"] = args.long_seconds
    figures["peak_rss_bytes"] = memory
    for name, value in memory.items():
        print(f"{name:14s} peak memory {value / 2**20:8.0f} MiB", flush=True)
    if args.original:
        for name in OURS:
            figures[f"{name}_speedup"] = seconds["original"] / seconds[name]
        figures["peak_memory_ratio"] = memory["float32"] / memory["original"]
    figures["precision"] = [precision(args, strength) for strength in args.strengths]
    for row in figures["precision"]:
        print("  ".join(f"{key} {value:.3g}" for key, value in row.items()), flush=True)
    return figures


def get_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original", help="folder of a clone of github.com/ksw0306/FloWaveNet; without: ours only")
    parser.add_argument("--quick", action="store_true", help="a short utterance, few turns, no long one")
    parser.add_argument("--seconds", type=float, default=6.6, help="length of the utterance")
    parser.add_argument("--long_seconds", type=float, default=600.0, help="length of the long one; 0: none")
    parser.add_argument("--repeats", type=int, default=3, help="turns")
    parser.add_argument("--threads", type=int, default=2, help="threads of each process")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--n_block", type=int, default=8, help="context blocks")
    parser.add_argument("--n_flow", type=int, default=6, help="flow steps per block")
    parser.add_argument("--filter_size", type=int, default=256, help="channels; the original has 256")
    parser.add_argument("--strengths", type=float, nargs="*", default=STRENGTHS, help="of couplings, for the precision")
    parser.add_argument("--precision_seconds", type=float, default=1.0, help="length of utterances for the precision")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--same_weights", action="store_true", help=argparse.SUPPRESS)
    return parser


def main() -> None:
    """Print the rows, then the JSON."""
    args = get_parser().parse_args()
    if args.worker:
        work(args.worker, args)
        return
    if args.quick:
        args.seconds, args.long_seconds, args.repeats = min(args.seconds, 0.8), 0.0, 1
        args.strengths, args.precision_seconds = args.strengths[1:2], 0.1
    torch.set_num_threads(args.threads)
    print(json.dumps(measure(args)))


if __name__ == "__main__":
    main()
