#!/usr/bin/env python3
"""Write the data folders of Kerstin's voice, cut by the order of metadata.csv: training, development, evaluation."""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "local"))

from make_sets import Utterance, add_options, check, write_sets  # noqa: E402  (found by the line above)
from prepare_ljspeech import read_corpus  # noqa: E402


def check_version(metadata: Path, wanted: str) -> None:
    """Refuse another version of the corpus: its order decides what is held out.

    Args:
        metadata: The file.
        wanted: Its sha256, or any.

    Raises:
        ValueError: If the checksum differs; with both.
    """
    found = hashlib.sha256(metadata.read_bytes()).hexdigest()
    if wanted not in (found, "any"):
        raise ValueError(
            f"{metadata} is of another version of the corpus: sha256 {found}, {wanted} is wanted. In another order, "
            'utterances that others held out would be trained on. Where that is meant: --local_data_opts "--sha256 any"'
        )


def make_sets(utterances: list[Utterance], args: argparse.Namespace) -> list[tuple[str, list[Utterance]]]:
    """Cut the list: training, development, and one or two evaluation sets.

    Raises:
        ValueError: If a set would be empty, or the names aren't as many different ones.
    """
    tests = [name for name in args.test_sets.split() if name != args.valid_set]
    names = [args.train_set, args.valid_set, *tests]
    if len(tests) not in (1, 2) or len(set(names)) != len(names):
        raise ValueError(
            f"one or two evaluation sets beside {' and '.join(names[:2])} are wanted, got: {args.test_sets}"
        )
    sizes = [args.num_train, args.num_dev, args.num_eval]
    first, second, third = args.num_train, args.num_train + args.num_dev, sum(sizes)
    parts = [utterances[:first], utterances[first:second], utterances[second:third], utterances[third:]]
    if min(sizes) < 1 or not all(parts[: len(names)]):
        raise ValueError(
            f"num_train {args.num_train}, num_dev {args.num_dev} and num_eval {args.num_eval} must each be at least 1, "
            f"and together leave something of {len(utterances)} utterances for every set of: {' '.join(names)}"
        )
    return list(zip(names, parts, strict=False))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with metadata.csv and verified/")
    parser.add_argument("--num_train", type=int, default=760, help="utterances of the training set")
    parser.add_argument("--sha256", default="any", help="checksum of metadata.csv; any isn't checked")
    add_options(parser)
    args = parser.parse_args()
    try:
        utterances = read_corpus(args.corpus, "verified/{id}.flac", "kerstin")
        check_version(args.corpus / "metadata.csv", args.sha256)
        sets = make_sets(utterances, args)
        check(utterances, str(args.corpus))
        write_sets(args.data_dir, sets)
    except (ValueError, OSError) as error:
        sys.exit(f"prepare_kerstin: error: {error}")


if __name__ == "__main__":
    main()
