"""Sounds of which nobody knows what they are of aren't given to the weights of now; what moved is still compared."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
import torch

from flowavenet_plugin.bin import report
from flowavenet_plugin.bin.packed_stats import pack_stats
from flowavenet_plugin.data.provenance import MADE_OF
from flowavenet_plugin.vocoder.loading import load_vocoder
from tiny_recipe import Recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return Recipe(tmp_path)


def test_a_folder_that_lost_its_record_is_decoded_again(recipe: Recipe) -> None:
    recipe.decode()
    (recipe.out / MADE_OF).unlink()
    recipe.train()
    message = recipe.refused("score")
    assert "utt0" in message and "doesn't tell what its sound was made of (2 of 2" in message and "--stage 3" in message
    recipe.decode()
    recipe.score()
    recipe.pack()


def test_a_record_that_a_kill_cut_short(recipe: Recipe) -> None:
    recipe.decode()
    record = recipe.out / MADE_OF
    lines = record.read_text().splitlines()
    record.write_text(f"{lines[0]}\n{lines[1][:8]}")
    wav, fs = soundfile.read(recipe.out / "wav/utt1.wav", dtype="float32")
    soundfile.write(recipe.out / "wav/utt1.wav", 0 * wav, fs)
    assert "utt1" in (message := recipe.refused("score")) and "(1 of 2 utterances)" in message
    recipe.decode()
    recipe.score()
    assert json.loads((recipe.out / "scoring/scores.json").read_text())["weights"] is not None


def test_sounds_of_others_are_scored_and_no_weights_are_claimed(recipe: Recipe) -> None:
    recipe.decode()
    for name in (MADE_OF, "utt2rtf"):  # as another toolkit would have left them
        (recipe.out / name).unlink()
    recipe.score()
    scores = json.loads((recipe.out / "scoring/scores.json").read_text())
    assert scores["weights"] is None and scores["model_file"] == str(recipe.model)
    recipe.report()
    assert "they are of weights None" in recipe.refused("pack")


def test_weights_that_changed_in_a_moved_experiment(recipe: Recipe, tmp_path: Path) -> None:
    recipe.decode()
    recipe.score()
    (tmp_path / "exp").rename(tmp_path / "elsewhere")
    (tmp_path / "exp").symlink_to("elsewhere")
    recipe.report()  # in another place, but the same
    (tmp_path / "exp").unlink()
    recipe.model = tmp_path / "elsewhere" / recipe.model.name
    recipe.folder = tmp_path
    recipe.train()
    with pytest.raises(SystemExit) as stop:
        report.main([f"--experiment={tmp_path / 'elsewhere'}", "--inference_tag=decode"])
    assert "they are of weights" in str(stop.value.code)


def test_a_dump_of_which_the_lists_alone_are_left(recipe: Recipe) -> None:
    recipe.decode()
    recipe.score()
    (recipe.dump / "feats.ark").unlink()
    recipe.report()


def test_likelihoods_of_other_features_than_the_sound(recipe: Recipe, caplog: pytest.LogCaptureFixture) -> None:
    recipe.decode()
    recipe.score()
    assert "the log-likelihood of others" not in caplog.text
    dump, old = recipe.dump, recipe.dump.rename(recipe.dump.with_name("old"))
    Recipe(recipe.folder / "again")  # the same recordings
    (recipe.folder / "again/dump/dev").rename(dump)
    for name in ("wav.scp", "feats.scp"):
        (dump / name).write_text((dump / name).read_text().replace("again/dump", "dump"))
        (old / name).write_text((old / name).read_text().replace("/dev/", "/old/"))
    recipe.change_feats(lambda feats: feats - 0.1)
    record = recipe.out / MADE_OF
    record.write_text(record.read_text().replace("/dev/feats.scp", "/old/feats.scp").replace("%2Fdev%2F", "%2Fold%2F"))
    recipe.score()
    assert "utt1: the sound is of features with the checksum" in caplog.text


def test_a_class_that_keeps_its_statistics_elsewhere(recipe: Recipe, tmp_path: Path) -> None:
    vocoder = load_vocoder(recipe.model)
    states = {key: value for key, value in torch.load(recipe.model).items() if "feats_" not in key}
    torch.save(states, tmp_path / "bare.pth")
    vocoder.set_feats_stats(torch.full((vocoder.n_mels,), -1.0), torch.full((vocoder.n_mels,), 2.0))
    own = tmp_path / str(pack_stats(recipe.model, vocoder, None, tmp_path))
    (tmp_path / "out").mkdir()
    assert pack_stats(tmp_path / "bare.pth", vocoder, own, tmp_path / "out") == "feats_stats.npz"
    with pytest.raises(ValueError, match="mean"):
        pack_stats(tmp_path / "bare.pth", vocoder, recipe.dump / "feats_stats.npz", tmp_path / "out")
