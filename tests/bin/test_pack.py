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
from flowavenet_plugin.data.stats import read_stats
from flowavenet_plugin.vocoder.loading import load_vocoder, save_vocoder
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
        scores = dict(
            title="x", level={}, settings={}, remarks=[], natural={}, checksums={}, features=[], natural_columns=[]
        )
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


def stats_file(path: Path, mean: np.ndarray, std: np.ndarray, count: int = 7) -> str:
    np.savez(path, count=count, sum=count * mean, sum_square=count * (std**2 + mean**2))
    return str(path)


@pytest.fixture
def standardised(experiment: Path) -> Path:
    """The experiment, whose vocoder standardises features: a band never changed."""
    vocoder = load_vocoder(experiment / "model.pth")
    vocoder.set_feats_stats(torch.linspace(-4, 1, N_MELS), torch.linspace(0, 2, N_MELS))
    save_vocoder(vocoder, yaml.safe_load((experiment / "config.yaml").read_text()), experiment)
    return experiment


@pytest.mark.parametrize("half", [False, True])
def test_statistics_are_those_of_the_vocoder(standardised: Path, tmp_path: Path, half: bool) -> None:
    """Given, or made from it; the weights may be of half precision."""
    mean, std = np.linspace(-4, 1, N_MELS), np.linspace(0, 2, N_MELS)
    if half:
        states = {name: value.half() for name, value in torch.load(standardised / "model.pth").items()}
        torch.save(states, standardised / "model.pth")
    given = stats_file(tmp_path / "given.npz", mean, std)
    pack(standardised, tmp_path / "given.zip", "--feats_stats", given)
    pack(standardised, tmp_path / "made.zip")
    for name in ("given", "made"):
        unpack(tmp_path / f"{name}.zip", tmp_path / name)
        found = read_stats(tmp_path / name / "feats_stats.npz")
        np.testing.assert_allclose(found, [mean, std], atol=5e-3 if half else 2e-5)
        assert yaml.safe_load((tmp_path / name / "config.yaml").read_text())["feats_stats"].endswith("feats_stats.npz")
    assert (tmp_path / "given/feats_stats.npz").read_bytes() == Path(given).read_bytes()


@pytest.mark.parametrize(
    ("band", "mean_by", "std_by", "words"),
    [
        (2, 1e-3, 0.0, "the mean differs by up to 0.001, in band 2, where it is -1.999 and the vocoder has -2"),
        (5, 0.0, -0.5, "the deviation differs by up to 0.5, in band 5, where it is 1.5 and the vocoder has 2"),
        (1, np.nan, 0.0, "holds statistics that are not finite"),
    ],
)
def test_other_statistics_are_refused(
    standardised: Path, tmp_path: Path, band: int, mean_by: float, std_by: float, words: str
) -> None:
    mean, std = np.linspace(-4, 1, N_MELS), np.linspace(0, 2, N_MELS)
    mean[band] += mean_by
    std[band] += std_by
    given = stats_file(tmp_path / "given.npz", mean, std)
    with pytest.raises(SystemExit, match=words):
        pack(standardised, tmp_path / "voice.zip", "--feats_stats", given)
    assert not (tmp_path / "voice.zip").exists() and not (tmp_path / "voice_README.md").exists()


def test_statistics_of_other_bands_or_for_a_vocoder_without_are_refused(experiment: Path, tmp_path: Path) -> None:
    given = stats_file(tmp_path / "given.npz", np.full(N_MELS, -2.0), np.ones(N_MELS))
    with pytest.raises(SystemExit, match="where it is -2 and the vocoder has none: it takes features as they are"):
        pack(experiment, tmp_path / "voice.zip", "--feats_stats", given)
    given = stats_file(tmp_path / "given.npz", np.zeros(N_MELS + 1), np.ones(N_MELS + 1))
    with pytest.raises(SystemExit, match=f"is of {N_MELS + 1} bands, the vocoder has {N_MELS}"):
        pack(experiment, tmp_path / "voice.zip", "--feats_stats", given)
    assert not (tmp_path / "voice.zip").exists()


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
