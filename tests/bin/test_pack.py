"""Packing a model: the archive, the card, and what can't be packed."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from espnet2.main_funcs.pack_funcs import unpack

from flowavenet_plugin.bin.pack import main
from flowavenet_plugin.bin.sources import weights_checksum
from flowavenet_plugin.data.provenance import file_checksum
from flowavenet_plugin.vocoder.loading import load_vocoder
from tiny_corpus import FS, HOP, N_MELS
from tiny_voice import make_voice

TABLE = "| dataset | utterances |\n|---------|------------|\n| {name}  | 3          |\n"


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """An experiment with weights, statistics and two decoded sets."""
    exp = tmp_path / "recipe" / "exp" / "voc_x"
    make_voice(exp)
    config = yaml.safe_load((exp / "config.yaml").read_text())
    config["feats_stats"] = "dump/fbank/tr/feats_stats.npz"
    (exp / "config.yaml").write_text(yaml.safe_dump(config))
    np.savez(exp / "stats.npz", count=1, sum=np.zeros(N_MELS), sum_square=np.ones(N_MELS))
    for name in ("dev", "eval"):
        decoded = exp / "decode" / name
        (decoded / "wav").mkdir(parents=True)
        (decoded / "scoring").mkdir()
        soundfile.write(decoded / "wav" / "a.wav", np.full(8, 0.5 if name == "eval" else 0.1), FS)
        (decoded / "wav" / "wav.scp").write_text(f"a {decoded / 'wav' / 'a.wav'}\n")
        (decoded / "scoring" / "results.md").write_text("# RESULTS\n\n" + TABLE.format(name=name))
        wav = decoded / "wav" / "a.wav"
        audio = {"wavs": {"a": str(wav)}, "checksums": {"a": file_checksum(wav)}}
        weights = {"model_file": str(exp / "model.pth"), "weights": weights_checksum(exp / "model.pth")}
        scores = dict(title="x", level={}, settings={}, remarks=[], natural={}, checksums={})
        scores["systems"] = [{"name": "", **audio}]
        (decoded / "scoring" / "scores.json").write_text(json.dumps({**scores, **weights}))
    return exp


def pack(exp: Path, out: Path, *options: str) -> None:
    main(["--model_file", str(exp / "model.pth"), "--outpath", str(out), *options])


def test_espnet2_unpacks_it_elsewhere_and_finds_every_file(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "voice.zip"
    pack(experiment, out, "--feats_stats", str(experiment / "stats.npz"), "--results_dir", str(experiment / "decode"))
    assert capsys.readouterr().out.split() == [str(out), str(tmp_path / "voice_README.md")]
    feats = torch.zeros(4, N_MELS)
    wav = load_vocoder(experiment / "model.pth").inference(feats, seed=0)
    shutil.rmtree(tmp_path / "recipe")

    found = unpack(out, tmp_path / "elsewhere")  # the names of Text2Speech's arguments
    assert found == {
        "vocoder_file": str(tmp_path / "elsewhere" / "model.pth"),
        "vocoder_config": str(tmp_path / "elsewhere" / "config.yaml"),
    }
    config = yaml.safe_load(Path(found["vocoder_config"]).read_text())
    assert (
        config["feats_stats"] == str(tmp_path / "elsewhere" / "feats_stats.npz")
        and Path(config["feats_stats"]).exists()
    )
    for given in (out, tmp_path / "elsewhere", found["vocoder_file"]):
        torch.testing.assert_close(load_vocoder(given).inference(feats, seed=0), wav, rtol=0, atol=0)
    assert len(wav) == 4 * HOP
    assert not list(tmp_path.glob(".pack*"))


def test_the_card_holds_results_settings_and_sample(experiment: Path, tmp_path: Path) -> None:
    out = tmp_path / "voice.zip"
    pack(experiment, out, "--results_dir", str(experiment / "decode"), "--corpus", "jsut", "--lang", "ja")
    with zipfile.ZipFile(out) as archive:
        assert sorted(archive.namelist()) == ["README.md", "config.yaml", "meta.yaml", "model.pth", "sample.wav"]
        card = archive.read("README.md").decode()
        with archive.open("sample.wav") as file:
            assert soundfile.read(file)[0][0] == pytest.approx(0.5, abs=1e-3)  # of the last set
        assert yaml.safe_load(archive.read("config.yaml"))["feats_stats"] is None
    assert card == (tmp_path / "voice_README.md").read_text()
    _, front, text = card.split("---\n", 2)
    front = yaml.safe_load(front)
    assert (front["datasets"], front["language"]) == (["jsut"], "ja") and "vocoder" in front["tags"]
    rows = [line for line in text.splitlines() if line.startswith(("| dataset", "| dev", "| eval"))]
    assert len(rows) == 3 and f"| {FS} | {HOP} |" in text and "voice.zip" in text
    settings = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert settings["feats_extract_conf"]["n_mels"] == N_MELS


def test_notes_stand_in_the_card(experiment: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("## Data\n\nA single {clip}.\n", encoding="utf-8")
    pack(experiment, tmp_path / "voice.zip", "--notes", str(tmp_path / "notes.md"))
    card = (tmp_path / "voice_README.md").read_text(encoding="utf-8")
    assert "\n\n## Data\n\nA single {clip}.\n\n## Use\n" in card
    pack(experiment, tmp_path / "voice.zip")
    card = (tmp_path / "voice_README.md").read_text(encoding="utf-8")
    assert "## Data" not in card and "not `norm/feats.scp`.\n\n## Use\n" in card


def test_a_card_without_results_says_nothing_about_them(experiment: Path, tmp_path: Path) -> None:
    pack(experiment, tmp_path / "voice.zip")
    card = (tmp_path / "voice_README.md").read_text()
    assert "## Results" not in card and "sample.wav" not in card and "language" not in card


def test_what_cannot_be_packed_is_refused_and_nothing_is_left(experiment: Path, tmp_path: Path) -> None:
    shutil.copy(experiment / "model.pth", experiment / "checkpoint.pth")
    broken = torch.load(experiment / "model.pth")
    broken.popitem()
    torch.save(broken, experiment / "broken.pth")
    for file, out, words in (
        ("model.pth", "voice.tar", "must end in .zip"),
        ("checkpoint.pth", "voice.zip", "latest.pth"),
        ("none.pth", "voice.zip", "none.pth"),
        ("broken.pth", "voice.zip", "1 missing"),
    ):
        with pytest.raises(SystemExit, match=words):
            main(["--model_file", str(experiment / file), "--outpath", str(tmp_path / out)])
    assert [path.name for path in tmp_path.iterdir()] == ["recipe"]


def test_a_voice_keeps_its_refinement(experiment: Path, tmp_path: Path) -> None:
    pack(experiment, tmp_path / "voice.zip", "--refine", "2")
    assert load_vocoder(tmp_path / "voice.zip").refine == 2
    config = experiment / "config.yaml"
    config.write_text(config.read_text() + "refine: 3\n")
    for options, expected in (((), 3), (("--refine", "0"), 0)):
        pack(experiment, tmp_path / "again.zip", *options)
        assert getattr(load_vocoder(tmp_path / "again.zip"), "refine", 0) == expected
    with pytest.raises(SystemExit, match="pack: error: .*whole number from 0, not -1"):
        pack(experiment, tmp_path / "none.zip", "--refine", "-1")
    assert not (tmp_path / "none.zip").exists()
