"""Settings of a TTS model's features against a vocoder's."""

from __future__ import annotations

import pytest
from espnet2.tts.feats_extract.log_mel_fbank import LogMelFbank
from espnet2.tts.feats_extract.log_spectrogram import LogSpectrogram
from torch import nn

from flowavenet_plugin.data.features import full_settings
from flowavenet_plugin.tasks.compatibility import check_features, differences, tts_parameters

SETTINGS = dict(fs=22050, n_fft=1024, hop_length=256, n_mels=80, fmin=80, fmax=7600)


def rows(changes: dict, feats_extract: str = "fbank") -> dict[str, tuple[str, str]]:
    """Return key -> both values, for a TTS model that differs from the vocoder by ``changes``."""
    extractor = LogMelFbank(**{**SETTINGS, **changes})
    found = differences(tts_parameters(extractor), feats_extract, full_settings("fbank", SETTINGS))
    assert all(row[3] for row in found)
    return {row[0]: row[1:3] for row in found}


@pytest.mark.parametrize("changes", [{}, dict(win_length=1024), dict(win_length=None)])
def test_equal_in_effect_is_equal(changes: dict) -> None:
    assert rows(changes) == {}


def test_null_limits_are_what_they_stand_for() -> None:
    whole = full_settings("fbank", {**SETTINGS, "fmin": 0, "fmax": None})
    extractor = LogMelFbank(**{**SETTINGS, "fmin": None, "fmax": 11025})
    assert differences(tts_parameters(extractor), "fbank", whole) == []


@pytest.mark.parametrize(
    "changes, key, values",
    [
        (dict(fs=24000), "fs", ("24000", "22050")),
        (dict(n_fft=2048, win_length=1024), "n_fft", ("2048", "1024")),
        (dict(hop_length=300), "hop_length", ("300", "256")),
        (dict(win_length=800), "win_length", ("800", "1024")),
        (dict(window="hamming"), "window", ("hamming", "hann")),
        (dict(n_mels=40), "n_mels", ("40", "80")),
        (dict(fmin=0), "fmin", ("0", "80")),
        (dict(fmax=8000), "fmax", ("8000", "7600")),
        (dict(log_base=None), "log_base", ("None", "10.0")),
        (dict(htk=True), "htk", ("True", "False")),
    ],
)
def test_each_difference_is_named_with_both_values(changes: dict, key: str, values: tuple[str, str]) -> None:
    assert rows(changes) == {key: values}


def test_types_of_features() -> None:
    assert "feats_extract" in rows({}, feats_extract="original")
    parameters = tts_parameters(LogSpectrogram(n_fft=1024, hop_length=256))
    found = differences(parameters, "fbank", full_settings("fbank", SETTINGS))
    assert ("feats_extract", "a spectrogram", "fbank") in [row[:3] for row in found]


def test_the_message_is_a_table() -> None:
    vocoder = nn.Module()
    vocoder.feats_extract, vocoder.feats_extract_conf = "fbank", full_settings("fbank", SETTINGS)
    model = nn.Module()
    check_features(None, vocoder)
    check_features(model, vocoder)  # without an extractor nothing can be compared
    model.feats_extract = LogMelFbank(**SETTINGS)
    check_features(model, vocoder)
    model.feats_extract = LogMelFbank(**{**SETTINGS, "fs": 24000, "hop_length": 300})
    with pytest.raises(ValueError) as error:
        check_features(model, vocoder)
    lines = str(error.value).splitlines()
    assert lines[1].split() == ["key", "TTS", "model", "vocoder", "what", "to", "do"]
    assert [line.split()[:3] for line in lines[2:]] == [["fs", "24000", "22050"], ["hop_length", "300", "256"]]
    del model.feats_extract
    model.tgt_feats_extract = LogMelFbank(**{**SETTINGS, "fs": 16000})  # as a speech-to-speech model calls it
    with pytest.raises(ValueError, match="16000"):
        check_features(model, vocoder)
