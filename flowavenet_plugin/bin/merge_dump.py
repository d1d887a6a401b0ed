"""Join the folders that parallel extract_feats jobs wrote into one; the arks and audio stay where they are.

``feats.scp`` is written last: where it is, the folder is complete.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flowavenet_plugin.bin.extraction import DONE, write_settings
from flowavenet_plugin.data.scp import check_arks, check_feats, check_same_ids, read_scp, write_scp
from flowavenet_plugin.data.settings import read_feats_settings
from flowavenet_plugin.data.stats import read_sums, write_stats

LISTS = ("feats.scp", "wav.scp", "utt2num_samples", "utt2num_frames")


def get_parser() -> argparse.ArgumentParser:
    """Options of this command."""
    parser = argparse.ArgumentParser(
        prog="merge_dump", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for the joined lists and statistics")
    parser.add_argument("split_dirs", type=Path, nargs="+", metavar="SPLIT_DIR", help="output_dir of extract_feats")
    return parser


def read_part(folder: Path) -> tuple[dict[str, dict[str, str]], dict[str, Any]]:
    """Read and check one part.

    Returns:
        Its lists by file name, and the content of feats_extract.yaml.

    Raises:
        ValueError: If it is unfinished, or its lists, features and audio don't fit each other.
        FileNotFoundError: If a file is missing.
    """
    if not (folder / DONE).is_file():
        raise ValueError(f"{folder} is unfinished (no {DONE} in it): run its extract_feats again")
    lists = {name: read_scp(folder / name) for name in LISTS}
    settings = read_feats_settings(folder / "feats_extract.yaml")
    for name in LISTS[1:]:
        check_same_ids(lists["feats.scp"], lists[name], str(folder / "feats.scp"), str(folder / name))
    shapes = check_arks(folder / "feats.scp")
    samples = _as_numbers(lists["utt2num_samples"], folder / "utt2num_samples")
    frames = _as_numbers(lists["utt2num_frames"], folder / "utt2num_frames")
    conf = settings["feats_extract_conf"]
    try:
        check_feats(shapes, samples, n_mels=conf["n_mels"], hop=conf["hop_length"])
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    for utt, (found, _) in shapes.items():
        if frames[utt] != found:
            raise ValueError(f"{utt}: {frames[utt]} frames in {folder / 'utt2num_frames'}, {found} in the ark")
    return lists, settings


def _as_numbers(values: dict[str, str], path: Path) -> dict[str, int]:
    for utt, value in values.items():
        if not re.fullmatch(r"[0-9]{1,18}", value):
            raise ValueError(f"{utt}: '{value}' in {path} is not a number")
    return {utt: int(value) for utt, value in values.items()}


def check_same_settings(a: dict[str, Any], b: dict[str, Any], name_a: Path, name_b: Path) -> None:
    """Raises ValueError, naming every key and both values, if two parts were made with different settings."""
    flat_a, flat_b = ({"feats_extract": each["feats_extract"], **each["feats_extract_conf"]} for each in (a, b))
    differing = [
        f"{key} is {flat_a.get(key)} in {name_a} and {flat_b.get(key)} in {name_b}"
        for key in dict.fromkeys([*flat_a, *flat_b])
        if flat_a.get(key) != flat_b.get(key)
    ]
    if differing:
        raise ValueError(f"different feature settings: {'; '.join(differing)}")


def merge(split_dirs: Sequence[Path], output_dir: Path) -> int:
    """Join the parts; all of them are checked before anything is written.

    Returns:
        The number of utterances.

    Raises:
        ValueError: On a part that is unfinished or damaged, parts made with different settings, or an utterance that
            is in two of them, or no utterance in any.
        FileNotFoundError: If a file of a part is missing.
    """
    merged: dict[str, dict[str, str]] = {name: {} for name in (*LISTS, "bad_utts")}
    origin: dict[str, Path] = {}
    settings: dict[str, Any] = {}
    for folder in split_dirs:
        if folder.resolve() == output_dir.resolve():
            raise ValueError(f"{folder} is both a part and the output folder")
        lists, own_settings = read_part(folder)
        settings = settings or own_settings
        check_same_settings(settings, own_settings, split_dirs[0], folder)
        for utt in lists["feats.scp"]:
            if utt in origin:
                raise ValueError(f"{utt} is in both {origin[utt]} and {folder}")
            origin[utt] = folder
        if (folder / "bad_utts").exists():
            lists["bad_utts"] = read_scp(folder / "bad_utts")
        for name, entries in lists.items():
            merged[name].update(entries)
    if not origin:
        bad = merged["bad_utts"]
        raise ValueError(f"none of {len(bad)} utterances is good: {'; '.join([*bad.values()][:3])}")
    total = sum(map(int, merged["utt2num_frames"].values()))
    write(output_dir, merged, settings, add_stats(split_dirs, total))
    return len(origin)


def add_stats(split_dirs: Sequence[Path], total: int) -> list[Any]:
    """Frames, sum and sum of squares of all parts; ValueError if they aren't of ``total`` frames."""
    stats = [0, 0.0, 0.0]
    for folder in split_dirs:
        stats = [one + more for one, more in zip(stats, read_sums(folder / "feats_stats.npz"), strict=True)]
    if stats[0] != total:
        raise ValueError(f"the parts' statistics count {stats[0]} frames, their features have {total}")
    return stats


def write(output_dir: Path, lists: dict[str, dict[str, str]], settings: dict[str, Any], stats: list[Any]) -> None:
    """Write the joined folder, feats.scp last."""
    output_dir.mkdir(parents=True, exist_ok=True)
    for name in ("feats.scp", "bad_utts"):
        (output_dir / name).unlink(missing_ok=True)
    write_stats(output_dir / "feats_stats.npz", *stats)
    write_settings(output_dir / "feats_extract.yaml", settings)
    for name in reversed(lists):
        if lists[name]:
            write_scp(output_dir / name, lists[name])


def main(cmd: Sequence[str] | None = None) -> None:
    """Entry point; exits with 1 and one line on stderr when a part is bad."""
    args = get_parser().parse_args(cmd)
    logging.basicConfig(level="INFO", format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    try:
        number = merge(args.split_dirs, args.output_dir)
    except (ValueError, OSError) as error:
        sys.exit(f"merge_dump: error: {error}")
    logging.info(f"{number} utterances in {args.output_dir}")


if __name__ == "__main__":
    main()
