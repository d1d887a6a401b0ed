"""Decoding compares the settings that stand beside features with the vocoder's."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import tiny_corpus
from flowavenet_plugin.bin import extract_feats, vocoder_inference
from flowavenet_plugin.data.features import full_settings
from flowavenet_plugin.data.scp import write_scp
from flowavenet_plugin.data.settings import read_settings
from recordings import write_wav
from tiny_voice import make_voice


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    """Decoding of features in tmp_path/data."""
    tiny_corpus.make_corpus(tmp_path / "data", n_utts=1)
    model = make_voice(tmp_path / "voice")
    return [f"--scp={tmp_path}/data/feats.scp", f"--model_file={model}", f"--output_dir={tmp_path}/out"]


@pytest.mark.parametrize(
    "kind, change, rows",
    [
        ("fbank", dict(fs=16000), {"fs": ("16000", "8000")}),
        ("fbank", dict(fmin=80, fmax=3800), {"fmin": ("80", "0"), "fmax": ("3800", "4000")}),
        ("fbank", dict(n_fft=256, hop_length=64), {"n_fft": ("256", "128"), "hop_length": ("64", "32")}),
        (
            "fbank",
            dict(log_base=None, htk=True, window="hamming"),
            {"htk": ("True", "False"), "window": ("hamming", "hann")},
        ),
        ("original", {}, {"feats_extract": ("original", "fbank")}),
    ],
)
def test_what_differs_is_refused_by_a_table(
    command: list[str], tmp_path: Path, kind: str, change: dict, rows: dict[str, tuple[str, str]]
) -> None:
    settings = {"feats_extract": kind, "feats_extract_conf": full_settings(kind, tiny_corpus.FEATS_CONF | change)}
    (tmp_path / "data/feats_extract.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(SystemExit, match="feats_extract.yaml:\nkey") as stop:
        vocoder_inference.main(command)
    found = {line.split()[0]: tuple(line.split()[1:3]) for line in str(stop.value.code).splitlines()[2:]}
    assert {key: found[key] for key in rows} == rows
    assert not (tmp_path / "out/wav").exists()


def test_equal_settings_and_the_lists_of_a_tts_run(command: list[str], tmp_path: Path) -> None:
    settings = {"feats_extract": "fbank", "feats_extract_conf": full_settings("fbank", tiny_corpus.FEATS_CONF)}
    (tmp_path / "data/feats_extract.yaml").write_text(yaml.safe_dump(settings))
    vocoder_inference.main(command)
    run = tmp_path / "exp/tts_x/decode_y/eval1/denorm"
    run.mkdir(parents=True)
    (run / "feats.scp").write_text((tmp_path / "data/feats.scp").read_text())
    conf = tiny_corpus.FEATS_CONF | dict(fmin=20)
    (tmp_path / "exp/tts_x/config.yaml").write_text(
        yaml.safe_dump(dict(feats_extract="fbank", feats_extract_conf=conf))
    )
    with pytest.raises(SystemExit, match="\nfmin +20 +0 "):
        vocoder_inference.main([f"--scp={run}/feats.scp", command[1], f"--output_dir={tmp_path}/other"])


def test_extraction_without_options_is_of_the_rate_that_the_recipe_has(tmp_path: Path) -> None:
    for fs in (22050, 16000):
        write_scp(tmp_path / f"{fs}.scp", {"a": write_wav(tmp_path / f"{fs}.wav", fs=fs)})
    extract_feats.main(["--wav_scp", f"{tmp_path}/22050.scp", "--output_dir", f"{tmp_path}/out"])
    assert read_settings(tmp_path / "out/feats_extract.yaml")["feats_extract_conf"]["fs"] == 22050
    with pytest.raises(SystemExit, match="16000 Hz, 22050 Hz is wanted .*--feats_extract_conf fs=16000"):
        extract_feats.main(["--wav_scp", f"{tmp_path}/16000.scp", "--output_dir", f"{tmp_path}/other"])
