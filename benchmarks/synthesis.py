"""Time, memory and precision of synthesis: ours, the original code's, and what users would pick instead.

    python benchmarks/synthesis.py --original /path/of/a/clone/of/github.com/ksw0306/FloWaveNet
    python benchmarks/synthesis.py --original /path/of/a/clone --device cuda

Systems run in processes of their own and take turns on the same features; medians count. "original" and ours have the
same weights. "hifigan" is ESPnet2's HiFi-GAN v1 generator with random weights, "griffin_lim" takes 64 iterations from
the linear spectrum. On a GPU there are also "tf32" and, by CUDA graphs, "float32_graphs" and "bfloat16_graphs".
Peak memory is that of a process that loads a model and synthesises once. Real-time factors are seconds of work per
second of speech. --batches measures samples per second and compares with the machine's own peak. --model_file and
--feats_scp measure the precision on trained weights as well. The last line is JSON: times in seconds, memory in bytes.
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
from precision import precision, trained_precision
from throughput import batches, flops_per_sample, peak_flops
from torch import Tensor
from worker import Worker

from flowavenet_plugin.flow import FloWaveNet
from flowavenet_plugin.flow.synthesis import PreparedFlow

FS, HOP, N_MELS = 22050, 256, 80
TEMPERATURE = 0.8
#: About the standard deviation of what the couplings predict: near the identity, usual, strong.
STRENGTHS = (0.02, 0.1, 0.3)
OURS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
OURS_ON_CUDA = {**OURS, "tf32": torch.float32, "float32_graphs": torch.float32, "bfloat16_graphs": torch.bfloat16}
OTHERS = ("hifigan", "griffin_lim")


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
    if name in OURS_ON_CUDA:
        torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
        prepared = PreparedFlow(build_flow(args).to(args.device), OURS_ON_CUDA[name], release=True)
        return prepared.graphs.inverse if name.endswith("_graphs") else prepared.inverse
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
    """Answer each line of the input with the seconds of one synthesis and the peak memory of the process so far.

    A line that holds numbers asks for batches of so many.
    """
    torch.set_num_threads(args.threads)
    torch.set_grad_enabled(False)
    run = system(name, args, same_weights=args.same_weights)
    noise, cond = inputs(args.seconds, args.device)
    for line in sys.stdin:
        if line.split():
            print(json.dumps(batches(run, noise, cond, [int(word) for word in line.split()], args.repeats)), flush=True)
            continue
        start = time.perf_counter()
        run(noise, cond).sum().item()  # waits for the device
        answer = dict(seconds=time.perf_counter() - start)
        answer["peak_rss_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if args.device.startswith("cuda"):
            answer["peak_gpu_bytes"] = torch.cuda.max_memory_allocated()
        print(json.dumps(answer), flush=True)


def start(name: str, args: argparse.Namespace, seconds: float, same_weights: bool) -> Worker:
    """Start a system in a process of its own."""
    options = ("threads", "n_block", "n_flow", "filter_size", "device", "original", "repeats")
    given = {option: getattr(args, option) for option in options}
    return Worker(name, __file__, dict(given, seconds=seconds, same_weights=same_weights or None))


def turns(names: list[str], args: argparse.Namespace, figures: dict[str, object]) -> None:
    """Time each system for one utterance, in turns, and in batches; the first run of each is for the memory only."""
    workers = [start(name, args, args.seconds, same_weights=name == "original") for name in names]
    try:
        firsts = [worker.ask() for worker in workers]
        rounds = [[worker.ask()["seconds"] for worker in workers] for _ in range(args.repeats)]
        sizes = " ".join(map(str, args.batches))
        figures["batches"] = {worker.name: worker.ask(sizes) for worker in workers if args.batches}
    finally:
        for worker in workers:
            worker.close()
    figures["seconds"] = dict(zip(names, map(statistics.median, zip(*rounds, strict=True)), strict=True))
    for kind in ("peak_rss_bytes", "peak_gpu_bytes"):
        figures[kind] = {name: first[kind] for name, first in zip(names, firsts, strict=True) if kind in first}


def peak_memory(name: str, args: argparse.Namespace, seconds: float) -> float:
    """Return the peak memory of a fresh process that synthesises one utterance."""
    worker = start(name, args, seconds, same_weights=False)
    try:
        return worker.ask()["peak_rss_bytes"]
    finally:
        worker.close()


def measure_memory(args: argparse.Namespace, figures: dict[str, object]) -> None:
    """Add what :func:`turns` didn't see: the original without a copy of our weights, and long utterances."""
    memory = figures["peak_rss_bytes"]
    if args.original:  # there it had ours beside its own
        memory["original"] = peak_memory("original", args, args.seconds)
    for name, seconds in (("bfloat16", args.long_seconds), ("original", args.original_long_seconds)):
        if seconds and name in args.systems:
            figures[f"{name}_long_seconds"] = seconds
            memory[f"{name}_long"] = peak_memory(name, args, seconds)
    for name, value in memory.items():
        print(f"{name:15s} peak memory {value / 2**20:8.0f} MiB", flush=True)


def add_ratios(figures: dict[str, object]) -> None:
    """Add real-time factors, and ratios to the original where it was measured."""
    seconds, memory = figures["seconds"], figures["peak_rss_bytes"]
    for name, value in seconds.items():
        figures[f"{name}_rtf"] = value / figures["utterance_seconds"]
        if "original" in seconds and name in OURS_ON_CUDA:
            figures[f"{name}_speedup"] = seconds["original"] / value
    if "original" in memory and "float32" in memory:
        figures["peak_memory_ratio"] = memory["float32"] / memory["original"]


def measure_throughput(args: argparse.Namespace, figures: dict[str, object]) -> None:
    """Compare batches with the peak of bfloat16 products."""
    peak = peak_flops(args.device, torch.bfloat16, args.peak_size)
    work = flops_per_sample(build_flow(args))
    figures.update(bfloat16_peak_flops=peak, flops_per_sample=work)
    print(f"peak of bfloat16 products {peak / 1e12:.1f} TFLOP/s, {work / 1e6:.2f} MFLOP per sample", flush=True)
    for name, rows in figures["batches"].items():
        for row in rows:
            share = ""
            if name in OURS_ON_CUDA or name == "original":
                row["share_of_bfloat16_peak"] = row["samples_per_second"] * work / peak
                share = f", {row['share_of_bfloat16_peak']:.1%} of the peak"
            print(
                f"{name:15s} batch of {row['batch']:3d}: {row['samples_per_second']:12.0f} samples/s{share}", flush=True
            )


def measure_precision(args: argparse.Namespace) -> list[dict[str, object]]:
    """Return SNR (dB) and log-spectral distance (dB) of our float32 and bfloat16 to float64."""
    rows: list[dict[str, object]] = []
    for strength in args.strengths:
        noise, cond = inputs(args.precision_seconds, args.device)
        flow = build_flow(args, strength).to(args.device)
        rows.append(dict(strength=strength, **precision(flow, noise, cond, OURS)))
    if args.model_file:
        given = args.model_file, args.feats_scp, args.precision_seconds, args.utterances, args.device
        rows += trained_precision(*given, OURS)
    for row in rows:
        print("  ".join(f"{key} {value if isinstance(value, str) else f'{value:.3g}'}" for key, value in row.items()))
    return rows


def measure(args: argparse.Namespace) -> dict[str, object]:
    """Measure all that is asked for."""
    spoken = max(1, round(args.seconds * FS / HOP)) * HOP / FS
    figures: dict[str, object] = dict(utterance_seconds=spoken, threads=args.threads, torch=torch.__version__)
    figures["device"] = torch.cuda.get_device_name() if args.device.startswith("cuda") else "cpu"
    if args.systems:
        turns(args.systems, args, figures)
        for name, value in figures["seconds"].items():
            print(f"{name:15s} {value:8.3f} s, real-time factor {value / spoken:.3f}", flush=True)
        measure_memory(args, figures)
        add_ratios(figures)
        if args.batches:
            measure_throughput(args, figures)
    figures["precision"] = measure_precision(args)
    return figures


def get_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original", help="folder of a clone of github.com/ksw0306/FloWaveNet; without: ours only")
    parser.add_argument("--quick", action="store_true", help="half of the flows, a short utterance, few turns")
    parser.add_argument("--systems", nargs="*", help="only these; default: all that the device and --original allow")
    parser.add_argument("--seconds", type=float, default=6.6, help="length of the utterance")
    parser.add_argument("--long_seconds", type=float, default=600.0, help="length of the long one; 0: none")
    parser.add_argument(
        "--original_long_seconds", type=float, default=0.0, help="the same for the original; 60 s: 10 GB"
    )
    parser.add_argument("--repeats", type=int, default=3, help="turns")
    parser.add_argument("--threads", type=int, default=2, help="threads of each process")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--n_block", type=int, default=8, help="context blocks")
    parser.add_argument("--n_flow", type=int, default=6, help="flow steps per block")
    parser.add_argument("--filter_size", type=int, default=256, help="channels; the original has 256")
    parser.add_argument("--strengths", type=float, nargs="*", default=STRENGTHS, help="of couplings, for the precision")
    parser.add_argument("--precision_seconds", type=float, default=1.0, help="length of utterances for the precision")
    parser.add_argument("--model_file", help="trained weights, for the precision")
    parser.add_argument("--feats_scp", help="features for them")
    parser.add_argument("--utterances", type=int, default=2, help="how many of these features")
    parser.add_argument("--batches", type=int, nargs="*", help="utterances at once; default: on a GPU 1, 8 and 32")
    parser.add_argument("--peak_size", type=int, default=8192, help="rows of the matrices that measure the peak")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--same_weights", action="store_true", help=argparse.SUPPRESS)
    return parser


def main() -> None:
    """Print the rows, then the JSON."""
    args = get_parser().parse_args()
    if args.worker:
        work(args.worker, args)
        return
    if bool(args.model_file) != bool(args.feats_scp):
        sys.exit("synthesis.py: --model_file and --feats_scp belong together")
    cuda = args.device.startswith("cuda")
    if args.systems is None:
        args.systems = [*(["original"] if args.original else []), *(OURS_ON_CUDA if cuda else OURS), *OTHERS]
    if args.batches is None:
        args.batches = [1, 8, 32] if cuda else []
    if args.quick:
        args.seconds, args.long_seconds, args.repeats = min(args.seconds, 0.8), 0.0, 1
        args.strengths, args.precision_seconds, args.n_flow = args.strengths[1:2], 0.1, min(args.n_flow, 3)
        args.batches, args.original_long_seconds, args.peak_size = args.batches[:1], 0.0, min(args.peak_size, 2048)
    torch.set_num_threads(args.threads)
    print(json.dumps(measure(args)))


if __name__ == "__main__":
    main()
