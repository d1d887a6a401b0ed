"""Time and memory of training steps, ours and the original code's, side by side.

    python benchmarks/training.py --original /path/of/a/clone/of/github.com/ksw0306/FloWaveNet

Each side runs in a process of its own with the same weights and the same batch; they take steps in turns (forward,
backward, Adam), of which the medians count. The original runs as published: float32, torch.optim.Adam. Ours runs with
`reversible: false` ("plain"), with `reversible: true` ("reversible"), and the latter under bfloat16 autocast ("bf16");
Adam is the fused one. The last line is JSON; bytes are bytes, times are seconds per step.
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
from original import FIXED, build_original, copy_weights, couple, original_log_likelihood
from torch import Tensor, nn
from worker import Worker

from flowavenet_plugin.flow import FloWaveNet

OURS = ("plain", "reversible")
GPU_BATCHES = (2, 8, 32)


def saved_bytes(model: nn.Module, loss: Callable[[], Tensor]) -> int:
    """Count the bytes that a forward pass saves for the backward pass: unique storages, parameters left out."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        value = loss()
    total = sum(storage.nbytes() for storage in storages.values())
    value.backward()
    model.zero_grad()
    return total


class Side:
    """One model in training."""

    #: Samples per frame, as the original has them.
    hop = 256

    def __init__(self, name: str, args: argparse.Namespace, batch: int) -> None:
        """Build the model and its batch; ``name`` is "original", "plain", "reversible" or "bf16"."""
        torch.manual_seed(0)
        self.device = torch.device(args.device)
        self.name = name
        sizes = dict(n_mels=80, n_block=args.n_block, n_flow=args.n_flow, n_layer=2, block_per_split=4)
        ours = {**FIXED, "filter_size": args.filter_size}
        flow = FloWaveNet(**sizes, **ours, reversible=name != "plain")
        couple(flow)
        if name == "original":
            model = build_original(args.original, **sizes)
            copy_weights(flow, model)
            flow = model
        self.model = flow.train().to(self.device)
        frames = args.crop // self.hop
        generator = torch.Generator().manual_seed(1)  # the same batch for all: building a model draws numbers too
        self.x = 0.1 * torch.randn(batch, 1, frames * self.hop, generator=generator).to(self.device)
        self.cond = torch.randn(batch, 80, frames, generator=generator).to(self.device)
        fused = {} if name == "original" else dict(fused=True)
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=1e-6, **fused)

    def loss(self) -> Tensor:
        """Return the negative log-likelihood in nats per sample."""
        if self.name == "original":
            return -original_log_likelihood(self.model, self.x, self.cond)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.name == "bf16"):
            return -self.model.log_likelihood(self.x, self.cond).mean()

    def step(self) -> dict[str, float]:
        """Take one step; return its seconds and the loss before it."""
        start = time.perf_counter()
        loss = self.loss()
        loss.backward()
        self.optimiser.step()
        self.optimiser.zero_grad()
        value = loss.item()  # waits for the device
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return dict(seconds=time.perf_counter() - start, loss=value)

    def memory(self) -> dict[str, int]:
        """Return saved and peak bytes so far."""
        saved = saved_bytes(self.model, self.loss)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        found = dict(saved_bytes=saved, peak_rss_bytes=peak)
        if self.device.type == "cuda":
            found["peak_device_bytes"] = torch.cuda.max_memory_allocated()
        return found


def work(name: str, args: argparse.Namespace) -> None:
    """Serve "step" and "memory", a line each, until the input ends."""
    torch.set_num_threads(args.threads)
    side = Side(name, args, args.batch)
    for line in sys.stdin:
        print(json.dumps(getattr(side, line.strip())()), flush=True)


def start(name: str, args: argparse.Namespace, batch: int) -> Worker:
    """Start a side in a process of its own."""
    options = ("crop", "threads", "n_block", "n_flow", "filter_size", "device", "original")
    return Worker(name, __file__, dict(batch=batch, **{option: getattr(args, option) for option in options}))


def measure(names: list[str], args: argparse.Namespace, batch: int) -> dict[str, dict[str, float]]:
    """Return median seconds, samples/s, loss and memory of each side; the first step of each isn't counted."""
    workers = [start(name, args, batch) for name in names]
    try:
        steps: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for i in range(args.steps + 1):
            for worker in workers:
                steps[worker.name].append(worker.ask("step"))
                print(f"step {i} of {worker.name}: {steps[worker.name][-1]['seconds']:.3f} s", flush=True)
        rows = {}
        for worker in workers:
            seconds = statistics.median(step["seconds"] for step in steps[worker.name][1:])
            loss = steps[worker.name][0]["loss"]
            rows[worker.name] = dict(
                seconds=seconds, samples_per_s=batch * args.crop / seconds, loss=loss, **worker.ask("memory")
            )
        return rows
    finally:
        for worker in workers:
            worker.close()


def ratios(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """Return the ratios that this benchmark is about; those to the original only if it ran."""
    found = dict(reversible_time_ratio=rows["reversible"]["seconds"] / rows["plain"]["seconds"])
    if "original" in rows:
        original = rows["original"]
        found["saved_bytes_ratio"] = rows["reversible"]["saved_bytes"] / original["saved_bytes"]
        found["step_time_ratio"] = rows["plain"]["seconds"] / original["seconds"]
        found["reversible_step_time_ratio"] = rows["reversible"]["seconds"] / original["seconds"]
        found["loss_difference"] = abs(rows["plain"]["loss"] - original["loss"])
        if "bf16" in rows:
            found["bf16_step_time_ratio"] = rows["bf16"]["seconds"] / original["seconds"]
    return found


def show(rows: dict[str, dict[str, float]]) -> None:
    """Print a table."""
    print(f"{'side':>12} {'s/step':>8} {'samples/s':>10} {'saved MB':>10} {'peak RSS MB':>12} {'device MB':>10}")
    for name, row in rows.items():
        device = row.get("peak_device_bytes", 0) / 1e6
        print(
            f"{name:>12} {row['seconds']:8.3f} {row['samples_per_s']:10.0f} {row['saved_bytes'] / 1e6:10.1f} "
            f"{row['peak_rss_bytes'] / 1e6:12.0f} {device:10.0f}",
            flush=True,
        )


def run(args: argparse.Namespace) -> dict[str, object]:
    """Measure everything and return the figures."""
    names = [*(["original"] if args.original else []), *OURS]
    on_gpu = args.device == "cuda"
    rows = measure(names, args, args.batch)
    if on_gpu or not args.quick:
        names.append("bf16")
        rows.update(measure(["bf16"], args, args.batch))  # by itself: four models at once need too much memory
    show(rows)
    figures = dict(
        ratios(rows),
        sides=rows,
        step_time_ratio_of="plain / original",
        quick=args.quick,
        crop=args.crop,
        batch=args.batch,
        threads=args.threads,
        device=torch.cuda.get_device_name() if on_gpu else "cpu",
        torch=torch.__version__,
        sizes=dict(n_block=args.n_block, n_flow=args.n_flow, filter_size=args.filter_size),
    )
    if on_gpu:
        figures["batches"] = {}
        for batch in GPU_BATCHES:
            each = {}
            for name in names:  # one at a time: each gets the whole device
                try:
                    each.update(measure([name], args, batch))
                except RuntimeError as error:  # out of memory is a result
                    print(f"batch {batch}: {error}")
            print(f"batch {batch}")
            show(each)
            figures["batches"][batch] = each
    return figures


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original", help="folder of a clone of the original; without it, ours only")
    parser.add_argument("--quick", action="store_true", help="a minute: half of the flows, short crops, two steps")
    parser.add_argument("--crop", type=int, help="samples per item (default 16128; quick: 4096)")
    parser.add_argument("--batch", type=int, default=1, help="items (default %(default)s)")
    parser.add_argument("--steps", type=int, help="steps that count (default 5; quick: 2)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="(default %(default)s)")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(default %(default)s)"
    )
    parser.add_argument("--n_block", type=int, default=8, help="(default %(default)s, the paper's)")
    parser.add_argument("--n_flow", type=int, help="(default 6, the paper's; quick: 3)")
    parser.add_argument("--filter_size", type=int, default=256, help="of ours; the original has 256 always")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    args.crop = args.crop or (4096 if args.quick else 16128)
    args.steps = args.steps or (2 if args.quick else 5)
    args.n_flow = args.n_flow or (3 if args.quick else 6)
    if args.original and args.filter_size != FIXED["filter_size"]:
        parser.error(f"the original's filter_size is {FIXED['filter_size']}, not {args.filter_size}")
    if args.crop % Side.hop:
        parser.error(f"--crop must be a multiple of {Side.hop}, not {args.crop}")
    return args


def main() -> None:
    """Serve one side, or measure all."""
    args = parse()
    if args.worker:
        work(args.worker, args)
    else:
        print(json.dumps(run(args)))


if __name__ == "__main__":
    main()
