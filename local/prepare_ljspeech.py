#!/usr/bin/env python3
"""Write the data folders of LJSpeech, or of a corpus in its layout: metadata.csv and a file for each recording."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from make_sets import Utterance, add_options, make_sets

from flowavenet_plugin.data.text import read_text


def read_corpus(corpus: Path, audio: str = "wavs/{id}.wav", speaker: str = "LJ") -> list[Utterance]:
    """Read metadata.csv, lines ``id|text|normalised text``.

    Args:
        corpus: The folder.
        audio: Where in it the recording of ``{id}`` is.
        speaker: Who speaks.

    Returns:
        The utterances, with the normalised text, or the plain one where there is no other.

    Raises:
        ValueError: If the folder or a part of it is missing, or a line can't be read; with the file and line number.
    """
    if not corpus.is_dir():
        raise ValueError(f"there is no corpus at {corpus}: no such folder")
    metadata, folder = corpus / "metadata.csv", (corpus / audio).parent
    missing = [path.name for path, there in ((metadata, metadata.is_file()), (folder, folder.is_dir())) if not there]
    if missing:
        raise ValueError(f"the corpus at {corpus} is incomplete: no {' and no '.join(missing)} in it")
    utterances = []
    # Not the csv module: the corpus has unpaired quotation marks.
    for number, line in enumerate(read_text(metadata).split("\n"), start=1):
        if not line.strip():
            continue
        utt, *texts = (field.strip() for field in line.split("|"))
        if not texts:
            raise ValueError(f"{metadata}:{number}: '{line[:60]}' is not 'id|text|normalised text'")
        utterances.append(Utterance(utt, speaker, str(corpus / audio.replace("{id}", utt)), texts[-1] or texts[0]))
    if not utterances:
        raise ValueError(f"the corpus at {corpus} is incomplete: metadata.csv is empty")
    return utterances


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with metadata.csv")
    parser.add_argument("--audio", default="wavs/{id}.wav", help="where in it the recording of {id} is")
    parser.add_argument("--speaker", default="LJ", help="name of the speaker")
    add_options(parser)
    args = parser.parse_args()
    try:
        make_sets(read_corpus(args.corpus, args.audio, args.speaker), f"the corpus at {args.corpus}", args)
    except (ValueError, OSError) as error:
        sys.exit(f"prepare_ljspeech: error: {error}")


if __name__ == "__main__":
    main()
