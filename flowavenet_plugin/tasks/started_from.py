"""What a run was started from, by name and content: weights of ``--init_param`` and statistics of the features.

Both become part of the model, so that a run that goes on has no use for them: it must be told to go on from the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowavenet_plugin.data.provenance import checksum, file_checksum
from flowavenet_plugin.data.stats import read_stats
from flowavenet_plugin.tasks.starting_weights import InitParam
from flowavenet_plugin.vocoder.loading import unpacked

LEAVE_OUT = "Leave it out and the run goes on with its own weights; or start another run (--output_dir; run.sh: --tag)"


def describe_start(args: argparse.Namespace) -> dict[str, Any]:
    """Return what is named: ``init_param`` name -> checksum and parts of the file, ``feats_stats`` name -> checksum.

    With weights comes ``ignore_init_mismatch``, as it decides on which of them were taken.

    Raises:
        FileNotFoundError: If a file is missing.
    """
    start: dict[str, Any] = {"init_param": {}, "feats_stats": {}}
    for name in args.init_param:
        wanted = InitParam.parse(name)
        if not Path(wanted.path).exists():
            raise FileNotFoundError(f"--init_param {name}: no such file")
        with unpacked(Path(wanted.path)) as weights:
            start["init_param"][str(name)] = file_checksum(weights) + wanted.parts
    if args.init_param:
        start["ignore_init_mismatch"] = args.ignore_init_mismatch
    if args.feats_stats is not None:
        mean, std = read_stats(args.feats_stats)
        start["feats_stats"][str(args.feats_stats)] = checksum(mean.tobytes(), std.tobytes())
    return start


def take_up_start(args: argparse.Namespace, before: Mapping[str, Any], source: Path) -> None:
    """Compare what is named now with what the run was started from, which stays recorded in ``args``.

    Args:
        args: Options of now; gets ``started_from``.
        before: Recorded options of the run.
        source: Where they stand.

    Raises:
        FileNotFoundError: If a named file is missing.
        ValueError: If other weights or other statistics are named; with both names and checksums.
    """
    now, then = describe_start(args), before.get("started_from")
    if then is None:  # the run of an older version: names are all there is
        then = {"init_param": dict.fromkeys(before.get("init_param") or []), "feats_stats": now["feats_stats"]}
    elif then["init_param"] and "ignore_init_mismatch" not in then:  # an older version knew no parts
        parts = {name: InitParam.parse(name).parts for name in then["init_param"]}
        then = {**then, "init_param": {name: f"{value}{parts[name]}" for name, value in then["init_param"].items()}}
    if now["init_param"] and not _same(now["init_param"], then["init_param"]):
        raise ValueError(
            f"--init_param {_words(now['init_param'])}: the run in {args.output_dir} was started from "
            f"{_words(then['init_param'])} ({source}) and has trained since. {LEAVE_OUT}"
        )
    loosely = [start.get("ignore_init_mismatch") for start in (then, now)]
    if None not in loosely and loosely[0] != loosely[1]:
        raise ValueError(
            f"--ignore_init_mismatch {loosely[1]}: the run in {args.output_dir} took its weights with {loosely[0]} "
            f"({source}), and has trained since. {LEAVE_OUT}"
        )
    if not _same(now["feats_stats"], then["feats_stats"]):
        raise ValueError(
            f"--feats_stats {_words(now['feats_stats'])}: the run in {args.output_dir} learns features with the "
            f"statistics {_words(then['feats_stats'])} ({source}). These are other features: give the run those that "
            "it was started with, or start another run (--output_dir; run.sh: --tag)"
        )
    args.started_from = then


def _same(now: Mapping[str, str], then: Mapping[str, str | None]) -> bool:
    """Compare contents, where they are known, else names."""
    if None in then.values():
        return set(now) == set(then)
    return list(now.values()) == list(then.values())


def _words(start: Mapping[str, str | None]) -> str:
    return ", ".join(f"{name} (checksum {sum_ or 'unknown'})" for name, sum_ in start.items()) or "none"
