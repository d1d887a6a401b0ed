"""The sets that a run was trained and validated on: a run that goes on must be given the same.

Its batches are counted in them, and its epochs are compared by the validation set. Ids, their order and lengths are
compared for all utterances, content for a few: a set may be moved to another place, but not be made of other features.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import kaldiio
import numpy as np
import torch

from flowavenet_plugin.data.provenance import checksum, feats_checksum
from flowavenet_plugin.data.scp import read_audio, read_scp
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
        the checksum of the content of some of them. Data of other types than ``sound``, ``kaldi_ark`` and ``npy`` are
        left out.

    Raises:
        ValueError: If a file of the set can't be read.
    """
    lists = [read_scp(path) for path in shape_files]
    utts = list(lists[0])
    lines = [f"{utt} {' '.join(lengths.get(utt, '') for lengths in lists)}" for utt in utts]
    found: dict[str, Any] = {"utterances": len(utts), "lengths": checksum("\n".join(lines).encode())}
    some = sorted({utts[place * (len(utts) - 1) // max(LOOKED_AT - 1, 1)] for place in range(LOOKED_AT)})
    for path, name, kind in paths:
        if (read := _READERS.get(kind)) is not None:
            entries = read_scp(path)
            if (gone := next((utt for utt in some if utt not in entries), None)) is not None:
                raise ValueError(f"{path} has no utterance {gone}, which {shape_files[0]} lists")
            found[name] = checksum(*(read(path, utt, entries[utt]).encode() for utt in some))
    return found


def _sound(path: str, utt: str, entry: str) -> str:
    """Return the checksum of the samples, so that the same recording in another format is the same."""
    if not Path(entry).is_file():
        raise ValueError(f"{utt}: no such audio file: {entry} (listed in {path})")
    wav, fs = read_audio(entry, utt)
    return _samples(wav, fs)


def _samples(wav: np.ndarray, fs: int) -> str:
    return checksum(str(fs).encode(), np.ascontiguousarray(wav, dtype=np.float32).tobytes())


def _ark(path: str, utt: str, entry: str) -> str:
    """Return the checksum of what lies in an ark: features, or samples with their rate."""
    content = _loaded(kaldiio.load_mat, path, utt, entry)  # holds no code: the lists were checked
    if isinstance(content, tuple):
        first, second = content
        fs, wav = (first, second) if isinstance(first, int) else (second, first)
        return _samples(wav / (np.iinfo(wav.dtype).max + 1) if wav.dtype.kind == "i" else wav, fs)
    return feats_checksum(content)


def _npy(path: str, utt: str, entry: str) -> str:
    return feats_checksum(_loaded(partial(np.load, allow_pickle=False), path, utt, entry))


def _loaded(load: Callable[[str], Any], path: str, utt: str, entry: str) -> Any:
    """Return what training reads, by the reader that it uses there.

    Raises:
        ValueError: If it can't be read; with the utterance, the file and its list.
    """
    try:
        return load(entry)
    except Exception as error:  # what is damaged makes these readers fail in many ways
        raise ValueError(f"{utt}: can't read {entry} (listed in {path}): {error!r}") from error


#: By the type of the data, ``--train_data_path_and_name_and_type``.
_READERS = {"sound": _sound, "kaldi_ark": _ark, "npy": _npy}


def check_same_among_processes(args: argparse.Namespace) -> None:
    """Refuse to train where processes, perhaps on several machines, have other sets than the first one.

    Args:
        args: Options, with ``trained_on``.

    Raises:
        ValueError: In all processes; with the number of one that differs, the set, and both values.
    """
    if not torch.distributed.is_initialized():
        return
    every: list[dict[str, Any]] = [{}] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(every, args.trained_on)
    for rank, sets in enumerate(every):
        for which, values in every[0].items():
            if differences := _differences(values, sets[which]):
                raise ValueError(
                    f"process {rank} has another {_WORDS[which]} set than process 0: {', '.join(differences)} "
                    "(process 0 first). All must read the same lists, features and audio"
                )


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Return what of a set differs; what only one of them knows does, too."""
    keys = dict.fromkeys([*second, *first])
    return [
        f"{key} {first.get(key, 'unknown')} and {second.get(key, 'unknown')}"
        for key in keys
        if first.get(key) != second.get(key)
    ]


def check_same_sets(recorded: Recorded, args: argparse.Namespace) -> None:
    """Refuse to go on with other sets.

    Args:
        recorded: Options of the run; those of an older version have no sets, and then nothing is compared.
        args: Options of now, with ``trained_on``.

    Raises:
        ValueError: With the set and what of it is other than before, both values.
    """
    for which, then in (recorded.options.get("trained_on") or {}).items():
        if differences := _differences(then, args.trained_on[which]):
            raise ValueError(
                f"this run can't go on with another {_WORDS[which]} set: {', '.join(differences)} (before and now; "
                f"checksums of ids with lengths and of some utterances' content; {recorded.source}). Give the run the "
                "set that it was started with, or start another from its weights (--output_dir, --init_param; "
                "run.sh: --tag, --resume)"
            )
