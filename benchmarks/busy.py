"""Synthesis beside other work: how long do threads that wait for others spin before they sleep?

    python benchmarks/busy.py
    python benchmarks/busy.py --busy 0 1 2 --spins none 0 1000 10000

Each figure is the median real-time factor of processes of their own, one after the other in turns, beside so many
processes that do nothing but work: of one thread, and of --threads with OpenMP's own choice (none) and with
GOMP_SPINCOUNT set to a number of turns (0 sleeps at once). What commands of this package set is the row "commands".
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

VOICE = Path(__file__).resolve().parents[1] / "egs/voice/voc1/voice.zip"


def measure(args: argparse.Namespace) -> None:
    """Print the real-time factor of this process's synthesis."""
    if args.commands:
        import flowavenet_plugin.bin  # noqa: F401  (sets what commands set)
    import torch

    from flowavenet_plugin import load_vocoder

    torch.set_num_threads(args.threads)
    vocoder = load_vocoder(args.model_file)
    vocoder.checks = False
    frames = round(args.seconds * vocoder.fs / vocoder.hop_length)
    noise = torch.randn(frames, vocoder.n_mels, generator=torch.Generator().manual_seed(0))
    feats = vocoder.feats_mean + vocoder.feats_std * noise
    vocoder.inference(feats, seed=0)
    start = time.perf_counter()
    vocoder.inference(feats, seed=0)
    print((time.perf_counter() - start) / (frames * vocoder.hop_length / vocoder.fs))


def run(args: argparse.Namespace, threads: int, spin: str) -> float:
    """Return the factor of a process with so many threads."""
    env = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    if spin not in ("none", "commands"):
        env["GOMP_SPINCOUNT"] = spin
    command = [sys.executable, __file__, "--measure", "--threads", str(threads), "--seconds", str(args.seconds)]
    command += ["--model_file", str(args.model_file), *(["--commands"] if spin == "commands" else [])]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True, text=True)
    return float(done.stdout.split()[-1])


def compare(args: argparse.Namespace) -> list[dict[str, object]]:
    """Measure all in turns, beside each number of other processes."""
    rows = []
    for busy in args.busy:
        others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
        try:
            kinds = [(1, "none"), *((args.threads, spin) for spin in args.spins)]
            found = {kind: [] for kind in kinds}
            for _ in range(args.repeats):
                for kind in kinds:
                    found[kind].append(run(args, *kind))
        finally:
            for other in others:
                other.kill()
                other.wait()
        for (threads, spin), values in found.items():
            rows.append(dict(busy=busy, threads=threads, spin=spin, rtf=statistics.median(values), worst=max(values)))
            print("{busy} busy, {threads} threads, spin {spin:>9}: {rtf:.3f}, worst {worst:.3f}".format(**rows[-1]))
    return rows


def main() -> None:
    """Print the rows, then the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short run of each")
    parser.add_argument("--model_file", type=Path, default=VOICE, help="weights")
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1], help="processes beside it")
    parser.add_argument("--spins", nargs="+", default=["none", "0", "commands"], help="see above")
    parser.add_argument("--threads", type=int, default=2, help="threads")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the sound")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--commands", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.quick:
        args.seconds, args.repeats = 2.0, 1
    if args.measure:
        measure(args)
    else:
        print(json.dumps(compare(args)))


if __name__ == "__main__":
    main()
