"""Do the lists of a training or validation set fit each other?"""

from __future__ import annotations

import codecs
from collections.abc import Collection
from pathlib import Path

from flowavenet_plugin.data.recordings import segments_beside
from flowavenet_plugin.data.scp import check_arks, check_holds_no_code, check_same_ids, read_scp


def check_lists(paths: Collection[tuple[str, str, str]], shape_files: Collection[str], n_mels: int, which: str) -> None:
    """Check data lists against each other.

    Args:
        paths: File, data name and type, as ``--train_data_path_and_name_and_type`` gives them.
        shape_files: Files whose first column holds the utterances to use.
        n_mels: Mel bands that features must have.
        which: "training" or "validation".

    Raises:
        ValueError: If there is no list, an entry is a shell pipe, an id stands twice or in one list only, a shape file
            names others, the speech is of recordings that segments cut, or an archive is broken, a pickle, or holds
            other bands.
    """
    if not paths:
        option = f"--{which.removesuffix('ing').removesuffix('ation')}_data_path_and_name_and_type"
        raise ValueError(f"there is no {which} set: name its lists by {option}")
    for path, name, kind in paths:
        if name == "speech" and (segments := segments_beside(path)) is not None:
            raise ValueError(
                f"{path} lists recordings, which {segments} cuts into utterances: training takes the list of "
                "utterances that stage 1 (extract_feats) writes, dump/.../wav.scp"
            )
        if kind == "kaldi_ark":
            check_holds_no_code(path)
    for path in (*(path for path, _, _ in paths), *shape_files):
        _check_no_mark(path)
    lists = {str(path): read_scp(path) for path, _, _ in paths}
    first = next(iter(lists))
    for name, entries in lists.items():
        check_same_ids(lists[first], entries, first, name)
    for shape_file in shape_files:  # these may choose some of the utterances
        chosen = read_scp(shape_file)
        unknown = [uid for uid in chosen if uid not in lists[first]]
        if unknown:
            raise ValueError(
                f"{len(unknown)} of {len(chosen)} utterances of {shape_file} are not in {first}: {unknown[:5]}"
            )
    for path, name, kind in paths:
        if kind == "kaldi_ark" and name == "feats":
            for uid, (_, bands) in check_arks(path).items():
                if bands != n_mels:
                    raise ValueError(f"{path}: utterance {uid} has features of {bands} bands, expected {n_mels}")


def _check_no_mark(path: str) -> None:
    """Refuse what ESPnet2's reader would take for a part of the first id."""
    if Path(path).is_file():
        with open(path, "rb") as file:
            if file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8:
                raise ValueError(f"{path} begins with a byte order mark: remove it (sed -i '1s/^\\xef\\xbb\\xbf//')")
