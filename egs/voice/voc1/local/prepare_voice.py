#!/usr/bin/env python3
"""Write the data folders of the voice in the box from two corpora of real speech: Kerstin's, and clips of LJSpeech.

Training: the first utterances of Kerstin's metadata.csv, and clips of LJSpeech, repeated up to --lj_share. Held out:
the utterances that follow, as in egs/kerstin, and the last clips of LJSpeech.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "local"))

from make_sets import Utterance, add_options, check, split, write_set  # noqa: E402  (found by the line above)
from prepare_ljspeech import read_corpus  # noqa: E402


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
    if not 0 <= args.lj_share < 1:
        raise ValueError(f"--lj_share must be from 0 to below 1, not {args.lj_share}")
    kerstin = read_corpus(args.kerstin, "verified/{id}.flac", "kerstin")
    first, second = args.num_train, args.num_train + args.kerstin_held_out
    third = second + args.kerstin_held_out
    if third > len(kerstin):
        raise ValueError(f"{args.kerstin} has {len(kerstin)} utterances, {third} are needed")
    train, dev, test = kerstin[:first], kerstin[first:second], kerstin[second:third]
    if args.lj is not None:
        clips = split(read_corpus(args.lj), args.num_dev, args.num_eval)
        train, dev, test = train + repeat(clips[0], len(train), args.lj_share), dev + clips[1], test + clips[2]
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
    parser.add_argument("--kerstin", type=Path, required=True, help="folder with metadata.csv and verified/")
    parser.add_argument("--num_train", type=int, default=760, help="its utterances for training")
    parser.add_argument("--kerstin_held_out", type=int, default=20, help="those of each held-out set, which follow")
    parser.add_argument("--lj", type=Path, help="folder of LJSpeech, or of some clips: metadata.csv and wavs/")
    parser.add_argument("--lj_share", type=float, default=0.25, help="part of the training list that is LJSpeech")
    add_options(parser)
    try:
        make_sets(parser.parse_args())
    except (ValueError, OSError) as error:
        sys.exit(f"prepare_voice: error: {error}")


if __name__ == "__main__":
    main()
