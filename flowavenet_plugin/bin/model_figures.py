"""Figures of models, not of sounds: likelihoods of another experiment, and real-time factors. Not a command itself."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from flowavenet_plugin.bin.scoring import System

if TYPE_CHECKING:
    from flowavenet_plugin.evaluation.table import Column

#: Names of the columns of likelihoods.
LIKELIHOODS = ("log_likelihood", "log_likelihood_bits")


def model_columns(system: System, natural: Mapping[str, str]) -> list[Column]:
    """Likelihoods and real-time factors of another model's decoding, as its own scoring and stage 3 left them.

    Args:
        system: From :func:`find_system`; only a folder ``<experiment>/<inference tag>/<set>`` can have some.
        natural: Utterance id -> file of natural speech.

    Returns:
        Columns of these utterances, as far as there are any.

    Raises:
        ValueError: If a file is damaged.
    """
    from flowavenet_plugin.evaluation.table import Column

    columns, factors = _likelihoods_of(system, natural), system.source / "utt2rtf"
    if factors.is_file():
        values = read_real_time_factors(factors, system.wavs, system.source, more=True)
        columns.append(Column("rtf", "real-time factor", False, values))
    return columns


def _likelihoods_of(system: System, natural: Mapping[str, str]) -> list[Column]:
    """Columns of its scores.json; none, with a warning, if that's of other speech, audio or features than of now."""
    from flowavenet_plugin.bin.features_now import changed_feats
    from flowavenet_plugin.data.provenance import changed_audio
    from flowavenet_plugin.evaluation.table import Column

    path = system.source / "scoring" / "scores.json"
    if not path.is_file():
        return []
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
        columns = [Column(**column) for column in scores["systems"][0]["columns"] if column["name"] in LIKELIHOODS]
        others = [utt for utt in natural if Path(natural[utt]).absolute() != Path(scores["natural"].get(utt, ""))]
        then = scores.get("checksums") if "features" in scores else None
        pairs = [] if then is None else [(natural, then), (system.wavs, scores["systems"][0]["checksums"])]
        changed = [wavs[utt] for wavs, sums in pairs for utt in changed_audio(wavs, sums, natural) if utt in sums]
        other_feats = None if then is None else changed_feats(scores["features"])
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise ValueError(f"--compare {system.name}: {path} is not of evaluate: {error!r}") from None
    if then is None or changed or other_feats is not None:
        why = f"is of another {changed[0]}" if changed else f"is of other features: {other_feats}"
        why = "doesn't tell of which audio and features it is" if then is None else why
        logging.warning(f"no log-likelihood of {system.name}: {path} {why}. Score it again")
        return []
    if others:
        logging.warning(
            f"no log-likelihood of {system.name}: {path} is of other natural speech, for instance for {others[0]}: "
            f"{scores['natural'].get(others[0], 'none')}, not {Path(natural[others[0]]).absolute()}"
        )
        return []
    return [
        column._replace(values={utt: column.values[utt] for utt in natural if utt in column.values})
        for column in columns
    ]


def read_real_time_factors(path: Path, wavs: Mapping[str, str], gen_scp: Path, more: bool = False) -> dict[str, float]:
    """Real-time factors of the synthesised speech; a synthesis that was killed may have left some out.

    Args:
        path: utt2rtf.
        wavs: Utterance id -> file.
        gen_scp: Where that is from, for messages.
        more: The file may have other utterances, too; they are left out.

    Raises:
        ValueError: If there is one of an unknown utterance, or a value is no finite number.
    """
    from flowavenet_plugin.data.scp import read_scp

    factors = {}
    for utt, value in read_scp(path).items():
        if utt not in wavs:
            if more:
                continue
            raise ValueError(f"{utt}: '{value}' in {path}, but {gen_scp} has no such utterance")
        try:
            factors[utt] = float(value)
        except ValueError:
            factors[utt] = math.nan
        if not math.isfinite(factors[utt]):
            raise ValueError(f"{utt}: '{value}' in {path} is no real-time factor")
    if len(factors) < len(wavs):
        logging.warning(f"{path} has real-time factors of {len(factors)} of {len(wavs)} utterances")
    return factors
