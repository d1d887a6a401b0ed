#!/usr/bin/env python3
"""Write the data folders of the voice in the box from three corpora: synthesised, bundled with egs/mini, and real.

Training: synthesised clips, the bundled clips that egs/mini trains on, and real clips, repeated up to --real_share.
Held out: the bundled corpus's sets of egs/mini, 3 clips each, and the last real clips.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "local"))

from make_sets import Utterance, add_options, check, split, write_set  # noqa: E402  (found by the line above)
from prepare_ljspeech import read_corpus  # noqa: E402

#: Clips of each held-out set of egs/mini.
BUNDLED = 3


def repeat(utterances: list[Utterance], others: int, share: float) -> list[Utterance]:
    """List utterances as often as makes them a share of all.

    Args:
        utterances: What is repeated, under ids of its own.
        others: Utterances that they join.
        share: Part of the whole list, from 0 to below 1; each utterance is there once at least.
    """
    times = max(1, round(share / (1 - share) * others / len(utterances)))
    return [utt._replace(id=f"{utt.id}-{i}") for i in range(1, times + 1) for utt in utterances]


def make_sets(args: argparse.Namespace) -> None:
    """Read the corpora and write the sets; ValueError for a corpus that can't be read or a share out of range."""
    if not 0 <= args.real_share < 1:
        raise ValueError(f"--real_share must be from 0 to below 1, not {args.real_share}")
    synthesised = read_corpus(args.synthesised, "flac/{id}.flac", "slt")
    bundled = split(read_corpus(args.bundled, "flac/{id}.flac", "slt"), BUNDLED, BUNDLED)
    train, dev, test = synthesised + bundled[0], bundled[1], bundled[2]
    if args.real is not None:
        real = split(read_corpus(args.real), args.num_dev, args.num_eval)
        train, dev, test = train + repeat(real[0], len(train), args.real_share), dev + real[1], test + real[2]
    names = [args.train_set, args.valid_set, args.test_sets]
    if len(set(names)) != 3 or len(args.test_sets.split()) != 1:
        raise ValueError(f"three different sets are wanted (training, development, evaluation), got: {' '.join(names)}")
    check(train + dev + test, "the voice's corpora")
    for name, members in zip(names, (train, dev, test), strict=True):
        write_set(args.data_dir / name, sorted(members))
        print(f"{args.data_dir / name}: {len(members)} utterances", file=sys.stderr)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--synthesised", type=Path, required=True, help="folder that make_corpus.py wrote")
    parser.add_argument("--bundled", type=Path, required=True, help="corpus of egs/mini")
    parser.add_argument("--real", type=Path, help="folder of real clips: metadata.csv and wavs/")
    parser.add_argument("--real_share", type=float, default=0.4, help="part of the training list that is real clips")
    add_options(parser)
    try:
        make_sets(parser.parse_args())
    except (ValueError, OSError) as error:
        sys.exit(f"prepare_voice: error: {error}")


if __name__ == "__main__":
    main()
