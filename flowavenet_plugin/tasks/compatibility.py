"""Do a TTS model's features and a vocoder's agree? What users trip over most, checked before any sound is made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from flowavenet_plugin.data.features import full_settings

#: Key in ESPnet2's ``get_parameters()`` -> key of ``feats_extract_conf``, and what to do about a difference.
_RESAMPLE = "train the vocoder at this rate (run.sh --fs), or resample its output"
_RETRAIN = "train the vocoder on features with this setting (run.sh --{option})"
_KEYS: tuple[tuple[str, str, str], ...] = (
    ("fs", "fs", _RESAMPLE),
    ("n_fft", "n_fft", _RETRAIN.format(option="n_fft")),
    ("n_shift", "hop_length", _RETRAIN.format(option="n_shift")),
    ("win_length", "win_length", _RETRAIN.format(option="win_length")),
    ("window", "window", "train the vocoder on features with this window"),
    ("n_mels", "n_mels", _RETRAIN.format(option="n_mels")),
    ("fmin", "fmin", _RETRAIN.format(option="fmin")),
    ("fmax", "fmax", _RETRAIN.format(option="fmax")),
    ("log_base", "log_base", "train the vocoder on features of this logarithm"),
    ("htk", "htk", "train the vocoder on features of this mel scale"),
)


def tts_parameters(feats_extract: nn.Module) -> dict[str, Any]:
    """Return the settings of a TTS model's feature extractor, including what ``get_parameters()`` leaves out."""
    parameters = dict(feats_extract.get_parameters())
    logmel = getattr(feats_extract, "logmel", None)
    if logmel is not None:
        parameters["log_base"] = logmel.log_base
        parameters["htk"] = logmel.mel_options["htk"]
    return parameters


def _effective(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Replace values that stand for another: win_length null is n_fft, fmax null half the rate, log_base null is e."""
    effective = dict(settings)
    if "win_length" in effective and effective["win_length"] is None:
        effective["win_length"] = effective.get("n_fft")
    if "fmin" in effective:
        effective["fmin"] = effective["fmin"] or 0
    if "fmax" in effective and effective["fmax"] is None:
        effective["fmax"] = effective.get("fs", 0) / 2
    if "log_base" in effective and effective["log_base"] is None:
        effective["log_base"] = math.e
    return effective


def differences(tts: Mapping[str, Any], feats_extract: str, conf: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Compare features.

    Args:
        tts: Settings of the TTS model's features (:func:`tts_parameters`).
        feats_extract: Name of the vocoder's feature type.
        conf: The vocoder's ``feats_extract_conf``.

    Returns:
        For each difference: key, the TTS model's value, the vocoder's value, what to do.
    """
    rows = []
    if feats_extract != "fbank":
        advice = "its numbers can't be converted to ESPnet2's: take a vocoder trained on --feats_extract fbank"
        rows.append(("feats_extract", "fbank", feats_extract, advice))
    elif "n_mels" not in tts:
        rows.append(("feats_extract", "a spectrogram", "fbank", "the vocoder needs a TTS model of mel-spectrograms"))
    ours, theirs = _effective(conf), _effective(tts)
    for tts_key, key, advice in _KEYS:
        if tts_key in theirs and key in ours and theirs[tts_key] != ours[key]:
            rows.append((key, str(tts.get(tts_key)), str(conf.get(key)), advice))
    return rows


def check_features(model: nn.Module | None, vocoder: nn.Module) -> None:
    """Compare the features of the TTS (SVS, S2ST) model at hand with the vocoder's.

    Args:
        model: The ESPnet2 model, or None; without a feature extractor in it nothing can be compared.
        vocoder: A loaded vocoder.

    Raises:
        ValueError: If they differ; the message is a table of key, both values and advice.
    """
    extractor = getattr(model, "tgt_feats_extract", None) or getattr(model, "feats_extract", None)
    if extractor is None or not hasattr(extractor, "get_parameters"):
        return
    _refuse(differences(tts_parameters(extractor), vocoder.feats_extract, vocoder.feats_extract_conf))


def check_config(config: Mapping[str, Any], vocoder: nn.Module) -> None:
    """Compare the features that the configuration of a TTS experiment names with the vocoder's.

    Args:
        config: Content of ``exp/tts_x/config.yaml``; without ``feats_extract`` nothing can be compared.
        vocoder: A loaded vocoder.

    Raises:
        ValueError: If they differ; the message is a table of key, both values and advice.
    """
    if config.get("feats_extract") is None:
        return
    settings = dict(config.get("feats_extract_conf") or {})
    if config["feats_extract"] == "fbank":
        settings = full_settings("fbank", settings)
    settings["n_shift"] = settings.pop("hop_length", None)
    _refuse(differences(settings, vocoder.feats_extract, vocoder.feats_extract_conf))


def check_extracted(settings: Mapping[str, Any], vocoder: nn.Module, place: object) -> None:
    """Compare the settings that stand beside extracted features with the vocoder's.

    Args:
        settings: Content of feats_extract.yaml.
        vocoder: A loaded vocoder.
        place: Where they stand, for the message.

    Raises:
        ValueError: If they differ; the message is a table of key, both values and advice.
    """
    if not isinstance(settings, Mapping) or settings.get("feats_extract") is None:
        raise ValueError(f"{place} has no feats_extract: it is no list of settings of features")
    kind, conf = settings["feats_extract"], settings.get("feats_extract_conf") or {}
    try:
        theirs = _effective(full_settings(kind, dict(conf)))
    except (TypeError, ValueError) as error:  # values of other types
        raise ValueError(f"{place}: {error}") from error
    ours = _effective(full_settings(vocoder.feats_extract, vocoder.feats_extract_conf))
    rows = []
    if kind != vocoder.feats_extract:
        rows.append(("feats_extract", kind, vocoder.feats_extract, "extract the type that the vocoder was trained on"))
    rows += [
        (
            key,
            str(theirs[key]),
            str(ours[key]),
            f"extract features with {key} {ours[key]} (stage 1), or take another voice",
        )
        for key in theirs
        if kind == vocoder.feats_extract and theirs[key] != ours[key]
    ]
    _refuse(rows, f"the vocoder wasn't trained on features such as those of {place}", "features")


def _refuse(
    rows: list[tuple[str, str, str, str]],
    what: str = "the vocoder wasn't trained on the features that this model makes",
    whose: str = "TTS model",
) -> None:
    if rows:
        table = [("key", whose, "vocoder", "what to do"), *rows]
        widths = [max(len(row[column]) for row in table) for column in range(3)]
        lines = ["  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]]) for row in table]
        raise ValueError(f"{what}:\n" + "\n".join(lines))
