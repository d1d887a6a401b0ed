#!/usr/bin/env python3
"""Write the data folders of JSUT's basic5000: ESPnet2 evaluates on its first utterances, not on the last."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "local"))

from make_sets import Utterance, add_options, check, write_sets  # noqa: E402  (found by the line above)

from flowavenet_plugin.data.text import read_text  # noqa: E402


def read_corpus(corpus: Path) -> list[Utterance]:
    """Read transcript_utf8.txt, lines ``id:text``; ValueError, with file and line number, for any other line."""
    transcript = corpus / "transcript_utf8.txt"
    utterances = []
    for number, line in enumerate(read_text(transcript).split("\n"), start=1):
        if not line.strip():
            continue
        utt, separator, text = (field.strip() for field in line.partition(":"))
        if not separator:
            raise ValueError(f"{transcript}:{number}: '{line[:60]}' is not 'id:text'")
        utterances.append(Utterance(utt, "JSUT", str(corpus / "wav" / f"{utt}.wav"), text))
    return sorted(utterances)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="the folder basic5000")
    add_options(parser)
    args = parser.parse_args()
    try:
        utterances = read_corpus(args.corpus)
        check(utterances, str(args.corpus))
        num_held_out = args.num_eval + args.num_dev
        if min(args.num_eval, args.num_dev) < 1 or num_held_out >= len(utterances):
            raise ValueError(
                f"num_eval {args.num_eval} and num_dev {args.num_dev} must be at least 1 and leave some of the "
                f"{len(utterances)} utterances for training"
            )
        sets = (
            (args.test_sets.strip(), utterances[: args.num_eval]),
            (args.valid_set, utterances[args.num_eval : num_held_out]),
            (args.train_set, utterances[num_held_out:]),
        )
        write_sets(args.data_dir, sets)
    except (ValueError, OSError) as error:
        sys.exit(f"prepare_jsut: error: {error}")


if __name__ == "__main__":
    main()
