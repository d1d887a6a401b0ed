#!/usr/bin/env python3
"""Write Kaldi data folders for a list of recordings: training, development and evaluation set.

The list has a line ``id<TAB>speaker<TAB>audio file<TAB>text`` for each utterance, any order. Sorted by id, the last
utterances become the evaluation set, those before them the development set, all others the training set. A corpus of
one's own needs only the list: see prepare_ljspeech.py.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from flowavenet_plugin.data.scp import write_scp
from flowavenet_plugin.data.text import read_text


class Utterance(NamedTuple):
    """One recording."""

    id: str
    speaker: str
    audio: str
    text: str


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options that every corpus's script takes."""
    parser.add_argument("--data_dir", type=Path, default=Path("data"), help="folder of the sets")
    parser.add_argument("--train_set", default="tr_no_dev", help="name of the training set")
    parser.add_argument("--valid_set", default="dev", help="name of the development set")
    parser.add_argument(
        "--test_sets", default="eval1", help="name of the evaluation set; the development set's may stand beside it"
    )
    parser.add_argument("--num_dev", type=int, default=250, help="utterances of the development set")
    parser.add_argument("--num_eval", type=int, default=250, help="utterances of the evaluation set")


def read_list(path: Path) -> list[Utterance]:
    """Read the list; ValueError, with the line number, for a line that doesn't have four fields."""
    utterances = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        fields = line.split("\t")
        if line.strip() and len(fields) != 4:
            raise ValueError(f"{path}:{number}: {len(fields)} fields, 4 are wanted (id, speaker, audio, text)")
        if line.strip():
            utterances.append(Utterance(*(field.strip() for field in fields)))
    return utterances


def check(utterances: Sequence[Utterance], source: str) -> None:
    """Refuse a list that has holes.

    Args:
        utterances: The list.
        source: What it was made of, for the messages.

    Raises:
        ValueError: On an id or speaker that Kaldi's files can't hold, a duplicate id, an empty text, or recordings
            that are missing or empty (how many, and the first ids).
    """
    seen: set[str] = set()
    for utt in utterances:
        if len(utt.id.split()) != 1 or len(utt.speaker.split()) != 1 or "/" in utt.id:
            raise ValueError(f"{source}: id '{utt.id}' and speaker '{utt.speaker}' must be words without spaces or '/'")
        if utt.id in seen:
            raise ValueError(f"{source}: utterance {utt.id} occurs twice")
        if not utt.text:
            raise ValueError(f"{source}: utterance {utt.id} has no text")
        seen.add(utt.id)
    lost = [utt for utt in utterances if not os.path.isfile(utt.audio) or os.path.getsize(utt.audio) == 0]
    if lost:
        ids = ", ".join(utt.id for utt in lost[:5]) + (", ..." if len(lost) > 5 else "")
        raise ValueError(
            f"{source}: {len(lost)} of {len(utterances)} recordings are missing or empty: {ids} "
            f"(the first should be {lost[0].audio})"
        )


def split(
    utterances: Sequence[Utterance], num_dev: int, num_eval: int
) -> tuple[list[Utterance], list[Utterance], list[Utterance]]:
    """Training, development and evaluation utterances, by sorted id.

    Raises:
        ValueError: If a size isn't positive, or nothing would be left for training; with the numbers.
    """
    if num_dev < 1 or num_eval < 1:
        raise ValueError(f"num_dev {num_dev} and num_eval {num_eval} must be 1 or more")
    held_out = num_dev + num_eval
    if held_out >= len(utterances):
        raise ValueError(
            f"num_dev {num_dev} + num_eval {num_eval} = {held_out} utterances are to be held out, but there are only "
            f"{len(utterances)}, and at least 1 has to be left for training: choose a smaller --num_dev and --num_eval"
        )
    ordered = sorted(utterances)
    return ordered[:-held_out], ordered[-held_out:-num_eval], ordered[-num_eval:]


def write_set(folder: Path, utterances: Sequence[Utterance]) -> None:
    """Write text, utt2spk, spk2utt and wav.scp of a set. wav.scp comes last: where it is, the set is complete."""
    (folder / "wav.scp").unlink(missing_ok=True)
    of_speaker: dict[str, list[str]] = {}
    for utt in utterances:
        of_speaker.setdefault(utt.speaker, []).append(utt.id)
    write_scp(folder / "text", {utt.id: " ".join(utt.text.split()) for utt in utterances})
    write_scp(folder / "utt2spk", {utt.id: utt.speaker for utt in utterances})
    write_scp(folder / "spk2utt", {speaker: " ".join(ids) for speaker, ids in sorted(of_speaker.items())})
    write_scp(folder / "wav.scp", {utt.id: utt.audio for utt in utterances})


def write_sets(data_dir: Path, sets: Iterable[tuple[str, Sequence[Utterance]]]) -> None:
    """Write several sets, name and utterances each, and say how large they are."""
    for name, members in sets:
        write_set(data_dir / name, members)
        print(f"{data_dir / name}: {len(members)} utterances", file=sys.stderr)


def make_sets(utterances: Sequence[Utterance], source: str, args: argparse.Namespace) -> None:
    """Check the list, split it and write the three sets; nothing is written if anything is wrong.

    Args:
        utterances: The list.
        source: What it was made of, for the messages.
        args: Values of the options of :func:`add_options`.

    Raises:
        ValueError: See :func:`check` and :func:`split`; or the names of the sets are not three different ones.
    """
    check(utterances, source)
    test_sets = [name for name in args.test_sets.split() if name != args.valid_set]
    names = [args.train_set, args.valid_set, *test_sets]
    if len(names) != 3 or len(set(names)) != 3:
        raise ValueError(f"three different sets are wanted (training, development, evaluation), got: {' '.join(names)}")
    write_sets(args.data_dir, zip(names, split(utterances, args.num_dev, args.num_eval), strict=True))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", type=Path, help="the list")
    add_options(parser)
    args = parser.parse_args()
    try:
        make_sets(read_list(args.list), str(args.list), args)
    except (ValueError, OSError) as error:
        sys.exit(f"make_sets: error: {error}")


if __name__ == "__main__":
    main()
