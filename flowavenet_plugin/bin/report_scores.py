"""What was scored of an experiment, as the report needs it. Not a command itself."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

if TYPE_CHECKING:
    from flowavenet_plugin.evaluation.table import Row

#: What a scores.json of evaluate has.
_KEYS = {"title", "level", "model_file", "settings", "remarks", "natural", "natural_columns", "systems"}


class Scored(NamedTuple):
    """A decoded set.

    Attributes:
        tag: Folder of the decoding.
        dataset: Folder of the set.
        scores: What evaluate wrote.
    """

    tag: str
    dataset: str
    scores: dict[str, Any]


def find_scores(experiment: Path, tag: str | None) -> tuple[str, list[Scored], dict[Path, str]]:
    """Find all scored sets of an experiment.

    Returns:
        The tag to show first; all sets, of that tag first; and which of other tags are left out, as they aren't of now:
        file -> reason.

    Raises:
        FileNotFoundError: If there are none, or none of that tag.
        ValueError: If a file is damaged, or scores of that tag are of other audio or weights than are there now.
    """
    from flowavenet_plugin.bin.sources import outdated

    paths = sorted(experiment.glob("*/*/scoring/scores.json"))
    if not paths:
        raise FileNotFoundError(f"no */*/scoring/scores.json in {experiment}: score a decoding first")
    if tag is None:
        tag = max(paths, key=lambda path: path.stat().st_mtime).parents[2].name
    found, old = [], {}
    for path in paths:
        scored = Scored(path.parents[2].name, path.parents[1].name, read_scores(path))
        if (why := outdated(scored.scores, experiment)) is None:
            found.append(scored)
        elif scored.tag == tag:
            raise ValueError(f"{path} isn't of now: {why}. Decode and score again (run.sh: --stage 3)")
        else:
            old[path] = why
            logging.warning(f"{path} is left out: {why}")
    first = [scored for scored in found if scored.tag == tag]
    if not first:
        raise FileNotFoundError(f"no {tag}/*/scoring/scores.json in {experiment}")
    # a sweep decodes at the first decoding's temperature, too: the same sound
    same = f"temperature{temperature(first[0]):g}_{Path(first[0].scores['model_file'] or '').stem}"
    found = [scored for scored in found if scored.tag == tag or scored.tag != same]
    found = sorted(found, key=lambda scored: (scored.tag != tag, temperature(scored), scored.tag, scored.dataset))
    return tag, found, old


def sweep_outdated(experiment: Path, weights: str | None, old: Mapping[Path, str]) -> str | None:
    """Return why the picture of a sweep over temperatures isn't of now, None: it is.

    Args:
        experiment: The picture lies in ``sweep/``, and beside it what it shows.
        weights: Checksum of the weights of now; None: not known.
        old: Scores that aren't of now, from :func:`find_scores`.
    """
    from flowavenet_plugin.data.provenance import file_checksum, read_sources

    sources = read_sources(experiment / "sweep")
    of = sources.pop("sweep", {}).get("weights")
    if not sources:
        return "it is of an older version, which doesn't tell what of"
    if weights is not None and of != weights:
        return f"it is of weights {of}, not {weights}"
    for name, source in sources.items():
        path, then = experiment / unquote(name), source.get("scores")
        if path in old:
            return old[path]
        now = file_checksum(path) if path.is_file() else None
        if now != then:
            return f"it is of scores {then}, but {path} {'is gone' if now is None else f'holds {now}'}"
    return None


def read_scores(path: Path) -> dict[str, Any]:
    """Read a scores.json.

    Raises:
        ValueError: If it is damaged, or lacks something.
    """
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    missing = sorted(_KEYS - set(scores)) if isinstance(scores, dict) else sorted(_KEYS)
    if missing:
        raise ValueError(f"{path} has no {', '.join(missing)}: score the decoding again")
    return scores


def temperature(scored: Scored) -> float:
    """Temperature of a decoding; -1 if it isn't known."""
    value = scored.scores["settings"].get("temperature")
    return -1.0 if value is None else float(value)


def label(scored: Scored, every: Sequence[Scored]) -> str:
    """Name a decoding: by its temperature, if no other decoding of the set has it, else by its tag."""
    alike = {other.tag for other in every if temperature(other) == temperature(scored)}
    return f"temperature {temperature(scored):g}" if temperature(scored) >= 0 and len(alike) == 1 else scored.tag


def make_rows(every: Sequence[Scored], dataset: str, prefix: str = "") -> list[Row]:
    """Return the scores of a set: of the first decoding, of what it was compared with, of others, of natural speech."""
    from flowavenet_plugin.evaluation.table import Column, Row

    rows = []
    for scored in (scored for scored in every if scored.dataset == dataset):
        first = scored.tag == every[0].tag
        for system in scored.scores["systems"]:
            if system["name"] and not first:
                continue  # the same comparisons were made with the first decoding
            name = system["name"] or label(scored, every)
            columns = [Column(**column) for column in system["columns"]]
            rows.append(Row(f"{prefix}{name}", len(scored.scores["natural"]), columns))
    scores = next(scored.scores for scored in every if scored.dataset == dataset)
    if scores["natural_columns"]:
        columns = [Column(**column) for column in scores["natural_columns"]]
        rows.append(Row(f"{prefix}natural", len(scores["natural"]), columns, natural=True))
    return rows


def recordings(every: Sequence[Scored], dataset: str, max_systems: int) -> dict[str, Mapping[str, str]]:
    """Return label -> utterance -> file, natural speech first.

    Of more decodings than may be heard, those are taken that spread over the range of temperatures.
    """
    of_set = [scored for scored in every if scored.dataset == dataset]
    first, others = of_set[0], of_set[1:]
    sources = {"natural": first.scores["natural"], label(first, every): first.scores["systems"][0]["wavs"]}
    sources |= {system["name"]: system["wavs"] for system in first.scores["systems"][1:]}
    room = max(max_systems - len(sources), 0)
    if len(others) > room:
        others = [others[round(index * (len(others) - 1) / max(room - 1, 1))] for index in range(room)]
    return sources | {label(scored, every): scored.scores["systems"][0]["wavs"] for scored in others}
