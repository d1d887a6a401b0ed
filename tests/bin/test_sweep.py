"""A sweep over temperatures with a tiny vocoder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml

import tiny_corpus
from flowavenet_plugin.bin import sweep, vocoder_inference
from flowavenet_plugin.data.features import full_settings
from flowavenet_plugin.data.provenance import read_sources
from tiny_voice import make_voice


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with dump/dev, exp/model.pth and its sweep."""
    folder = tmp_path_factory.mktemp("sweep")
    dump = tiny_corpus.make_corpus(folder / "dump" / "dev", n_utts=2, seconds=0.5)
    conf = {"feats_extract": "fbank", "feats_extract_conf": full_settings("fbank", tiny_corpus.FEATS_CONF)}
    (dump / "feats_extract.yaml").write_text(yaml.safe_dump(conf))
    make_voice(folder / "exp")
    run(folder)
    return folder


def run(folder: Path, *options: str) -> None:
    model = next((folder / "exp").glob("*.pth"))
    command = [f"--model_file={model}", f"--dump_dir={folder / 'dump'}", "--sets", "dev"]
    sweep.main([*command, "--temperatures", "0.5", "0", "1", *options])


def folder_of(done: Path, temperature: str) -> Path:
    return next((done / "exp").glob(f"temperature{temperature}_*")) / "dev"


def test_the_table_has_a_row_for_each_temperature(done: Path) -> None:
    lines = (done / "exp/sweep/sweep.md").read_text().splitlines()
    rows = [line.split("|")[1].strip() for line in lines if line.startswith("| dev")]
    assert rows == ["dev temperature 0", "dev temperature 0.5", "dev temperature 1"]
    assert (done / "exp/sweep/sweep.png").read_bytes()[:4] == b"\x89PNG"


def test_the_sound_is_of_its_temperature(done: Path) -> None:
    wavs = {t: soundfile.read(folder_of(done, t) / "wav/utt0.wav")[0] for t in ("0", "0.5", "1")}
    assert np.std(wavs["1"]) > np.std(wavs["0.5"]) > np.std(wavs["0"])
    scores = json.loads((folder_of(done, "0.5") / "scoring/scores.json").read_text())
    assert scores["settings"]["temperature"] == 0.5


def test_the_best_temperature_is_that_of_the_best_mean(done: Path) -> None:
    means = {}
    for temperature in ("0", "0.5", "1"):
        values = (folder_of(done, temperature) / "scoring/utt2lsd").read_text().split()[1::2]
        means[temperature] = np.mean([float(value) for value in values])
    expected = min(means, key=means.__getitem__)
    assert f"- log-spectral distance (dB): {expected} (dev)" in (done / "exp/sweep/sweep.md").read_text()


def test_sound_is_kept_until_the_weights_change(done: Path) -> None:
    wav = folder_of(done, "1") / "wav/utt0.wav"
    before = wav.stat().st_mtime_ns
    run(done)
    assert wav.stat().st_mtime_ns == before
    weights = next((done / "exp").glob("*.pth"))
    weights.touch()  # written again, the same
    run(done)
    assert wav.stat().st_mtime_ns == before
    states = torch.load(weights)
    next(iter(states.values())).add_(0.01)
    torch.save(states, weights)
    run(done)
    assert wav.stat().st_mtime_ns > before


@pytest.mark.parametrize("bad", ["-0.5", "nan", "inf"])
def test_a_temperature_that_is_none_is_refused(done: Path, bad: str) -> None:
    with pytest.raises(SystemExit, match=f"sweep: error: --temperatures: {bad}, a number of at least 0"):
        run(done, "--temperatures", "0.5", bad)


def test_a_swept_sound_is_what_decoding_with_the_same_options_makes(done: Path, tmp_path: Path) -> None:
    arguments = "--refine 2 --seed 3 --temperature 0.9"
    run(done, "--temperatures", "0.5", f"--inference_args={arguments}")
    model = next((done / "exp").glob("*.pth"))
    command = ["--scp", str(done / "dump/dev/feats.scp"), "--model_file", str(model), "--output_dir", str(tmp_path)]
    vocoder_inference.main([*command, *arguments.split(), "--temperature", "0.5"])
    swept, alone = (read_sources(folder)["utt0"] for folder in (folder_of(done, "0.5"), tmp_path))
    assert swept["sound"] == alone["sound"]
    assert (swept["refine"], swept["seed"], swept["temperature"]) == ("2", "3", "0.5")
    settings = json.loads((folder_of(done, "0.5") / "scoring/scores.json").read_text())["settings"]
    assert settings == {"temperature": 0.5, "seed": 3, "refine": 2}
    with pytest.raises(SystemExit, match="--inference_args '--refine \"': No closing quotation"):
        run(done, '--inference_args=--refine "')
