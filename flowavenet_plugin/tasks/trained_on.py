"""The sets that a run was trained and validated on: a run that goes on must be given the same.

Its batches are counted in them, and its epochs are compared by the validation set. Ids, their order and lengths are
compared for all utterances, content for a few: a set may be moved to another place, but not be made of other features.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from flowavenet_plugin.data.provenance import checksum, feats_checksum, file_checksum
from flowavenet_plugin.data.scp import open_feats, read_scp
from flowavenet_plugin.tasks.options import Recorded

#: Utterances whose content is compared, spread over a set: reading all would take minutes.
LOOKED_AT = 16
_WORDS = {"train": "training", "valid": "validation"}


def describe_set(paths: Collection[tuple[str, str, str]], shape_files: Sequence[str]) -> dict[str, Any]:
    """Return what a set is.

    Args:
        paths: File, data name and type, as ``--train_data_path_and_name_and_type`` gives them.
        shape_files: Files of ids and lengths; the first names the utterances to use.

    Returns:
        ``utterances``, their number; ``lengths``, the checksum of ids, order and lengths; and by the name of the data
        the checksum of the content of some of them. Data of other types than audio files and features are left out.

    Raises:
        ValueError: If a file of the set can't be read.
    """
    lists = [read_scp(path) for path in shape_files]
    utts = list(lists[0])
    lines = [f"{utt} {' '.join(lengths.get(utt, '') for lengths in lists)}" for utt in utts]
    found: dict[str, Any] = {"utterances": len(utts), "lengths": checksum("\n".join(lines).encode())}
    some = sorted({utts[place * (len(utts) - 1) // max(LOOKED_AT - 1, 1)] for place in range(LOOKED_AT)})
    for path, name, kind in paths:
        if (name, kind) == ("feats", "kaldi_ark"):
            feats = open_feats(path)
            found[name] = checksum(*(feats_checksum(feats[utt]).encode() for utt in some))
        elif kind == "sound":
            found[name] = checksum(*(_sound_checksum(read_scp(path)[utt], utt, path).encode() for utt in some))
    return found


def _sound_checksum(file: str, utt: str, listed: str) -> str:
    if not Path(file).is_file():
        raise ValueError(f"{utt}: no such audio file: {file} (listed in {listed})")
    return file_checksum(file)


def check_same_sets(recorded: Recorded, args: argparse.Namespace) -> None:
    """Refuse to go on with other sets.

    Args:
        recorded: Options of the run; those of an older version have no sets, and then nothing is compared.
        args: Options of now, with ``trained_on``.

    Raises:
        ValueError: With the set and what of it is other than before, both values.
    """
    for which, then in (recorded.options.get("trained_on") or {}).items():
        now = args.trained_on[which]
        differences = [
            f"{key} {then[key]} before, {value} now" for key, value in now.items() if then.get(key, value) != value
        ]
        if differences:
            raise ValueError(
                f"this run can't go on with another {_WORDS[which]} set: {', '.join(differences)} (checksums of ids "
                f"with lengths and of some utterances' content; {recorded.source}). Give the run the set that it was "
                "started with, or start another from its weights (--output_dir, --init_param; run.sh: --tag, --resume)"
            )
