"""Does dequantisation noise help? Small models are trained with and without it, and judged on clips they never saw.

    python benchmarks/dequantization.py --data folder/of/16-bit/wavs

Pairs start from the same weights and see the same segments. The last fifth of the clips is held out; its log-likelihood
is that of the audio as it is, without noise.
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import Any

from learning import add_options, judge, parse, read_clips, settings, split, train


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Train all pairs and judge them."""
    clips, fs = read_clips(args.data)
    known, held_out = split(clips)
    figures: dict[bool, list[float]] = {False: [], True: []}
    for seed in range(args.seeds):
        for dequantize in (False, True):
            figures[dequantize].append(judge(train(known, fs, args, seed, dequantize)[0], held_out))
        print(f"seed {seed}: without {figures[False][-1]:.4f}, with {figures[True][-1]:.4f} nats/sample", flush=True)
    gains = [b - a for a, b in zip(figures[False], figures[True], strict=True)]
    return dict(
        log_likelihood_without=statistics.mean(figures[False]),
        log_likelihood_with=statistics.mean(figures[True]),
        gain=statistics.mean(gains),
        gains=gains,
        **settings(args, clips),
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    print(json.dumps(measure(parse(parser, 60))))


if __name__ == "__main__":
    main()
