"""Are the features that sounds and scores are of still the same? Not a command itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    import numpy as np

    from flowavenet_plugin.data.provenance import Source


def feats_place(scp: Path, stats: str | None = None) -> dict[str, str]:
    """Return where features are, as it is kept beside a sound: name -> value, each a word.

    Args:
        scp: Their list, or a run of a TTS model.
        stats: Statistics to de-normalise a run with, a file or ``none``; None: not needed.
    """
    place = {"scp": quote(str(scp.absolute()))}
    if stats is not None:
        place["stats"] = stats if stats == "none" else quote(str(Path(stats).absolute()))
    return place


def settings_checksum(feats_scp: Path) -> str:
    """Return the checksum of the settings, feats_extract.yaml, beside a list of features.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If it is no YAML file.
    """
    from flowavenet_plugin.data.provenance import checksum
    from flowavenet_plugin.data.settings import read_feats_settings

    settings = read_feats_settings(feats_scp.parent / "feats_extract.yaml")
    return checksum(json.dumps(settings, sort_keys=True, default=str).encode())


class FeaturesNow:
    """Features at the places that sources name, as they are now.

    A place may be gone, as corpora are moved and dumps deleted; of its features nothing is known.
    """

    def __init__(self) -> None:
        self._opened: dict[tuple[str | None, str | None], Mapping[str, np.ndarray] | None] = {}
        self._settings: dict[Path, str] = {}

    def of(self, source: Mapping[str, str], utt: str) -> dict[str, str]:
        """Return how a source would read now: ``feats`` and ``settings``, as far as it has them and they are there.

        Raises:
            ValueError: If features can't be read.
        """
        from flowavenet_plugin.data.provenance import feats_checksum
        from flowavenet_plugin.data.scp import FeatsGoneError

        feats, now = self._open(source), {}
        if feats is None:
            return now
        if "feats" in source and utt in feats:
            try:
                now["feats"] = feats_checksum(feats[utt])
            except FeatsGoneError:  # the list alone was left
                return now
        scp = Path(unquote(source["scp"]))
        if "settings" in source and (scp.parent / "feats_extract.yaml").is_file():
            if scp not in self._settings:
                self._settings[scp] = settings_checksum(scp)
            now["settings"] = self._settings[scp]
        return now

    def _open(self, source: Mapping[str, str]) -> Mapping[str, np.ndarray] | None:
        key = source.get("scp"), source.get("stats")
        if key not in self._opened:
            self._opened[key] = None if key[0] is None else _open(Path(unquote(key[0])), key[1])
        return self._opened[key]


def _open(scp: Path, stats: str | None) -> Mapping[str, np.ndarray] | None:
    from flowavenet_plugin.data.scp import open_feats
    from flowavenet_plugin.data.tts_run import GeneratedFeats

    if scp.is_file():
        return open_feats(scp)
    if (scp / "denorm" / "feats.scp").is_file():
        return GeneratedFeats(scp)
    file = None if stats is None else unquote(stats)
    if not (scp / "norm" / "feats.scp").is_file() or file is None or not (file == "none" or Path(file).is_file()):
        return None
    return GeneratedFeats(scp, file)


def feats_sources(feats_scp: Path, utts: Sequence[str]) -> dict[str, Source]:
    """Return of which features the likelihoods of these utterances are, as if they were sounds: utterance -> source."""
    from flowavenet_plugin.data.provenance import feats_checksum
    from flowavenet_plugin.data.scp import open_feats

    feats = open_feats(feats_scp)
    return {utt: {**feats_place(feats_scp), "feats": feats_checksum(feats[utt])} for utt in utts}


def to_scores(sources: Sequence[Mapping[str, Mapping[str, str]]]) -> list[dict[str, Any]]:
    """Gather the features of sounds and likelihoods, for scores.json.

    Args:
        sources: Of each system: utterance -> source.

    Returns:
        For each place, ``{"scp": ..., "stats": ..., "settings": ..., "checksums": {utterance: checksum}}``, where
        ``stats`` and ``settings`` may be None.
    """
    found: list[dict[str, Any]] = []
    for system in sources:
        places: dict[tuple[str | None, ...], dict[str, str]] = {}
        for utt, source in system.items():
            if "scp" in source and "feats" in source:
                key = tuple(source.get(name) for name in ("scp", "stats", "settings"))
                places.setdefault(key, {})[utt] = source["feats"]
        for (scp, stats, settings), checksums in places.items():
            names = {"scp": unquote(scp or ""), "stats": unquote(stats) if stats else None, "settings": settings}
            if (entry := {**names, "checksums": checksums}) not in found:
                found.append(entry)
    return found


def changed_feats(entries: Sequence[Mapping[str, Any]]) -> str | None:
    """Say which features aren't what they were.

    Args:
        entries: From :func:`to_scores`.

    Returns:
        The first difference with utterance, file and both checksums; None: there is none.
    """
    now = FeaturesNow()
    for entry in entries:
        source = feats_place(Path(entry["scp"]), entry["stats"])
        if entry["settings"] is not None:
            source["settings"] = entry["settings"]
        for utt, then in entry["checksums"].items():
            try:
                found = now.of({**source, "feats": then}, utt)
            except ValueError as error:
                return f"features can't be read: {error}"
            if found.get("feats", then) != then:
                return f"{utt}: the features in {entry['scp']} have the checksum {found['feats']}, but had {then}"
            if found.get("settings", entry["settings"]) != entry["settings"]:
                place, before = Path(entry["scp"]).parent / "feats_extract.yaml", entry["settings"]
                return f"{utt}: the settings in {place} have the checksum {found['settings']}, but had {before}"
    return None
