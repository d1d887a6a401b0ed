"""Sound and scores are of the recordings, features, weights and options of now: else made anew, or refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import tiny_corpus
from flowavenet_plugin.bin import sweep
from flowavenet_plugin.bin.sources import weights_checksum
from flowavenet_plugin.data.provenance import read_sources
from flowavenet_plugin.data.scp import open_feats, read_scp
from tiny_recipe import UTTS, Recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return Recipe(tmp_path)


@pytest.mark.parametrize("cut", [0, 1000])
def test_sound_of_corrected_recordings_is_made_anew(recipe: Recipe, tmp_path: Path, cut: int) -> None:
    recipe.decode()
    before = {utt: (recipe.out / f"wav/{utt}.wav").stat().st_mtime_ns for utt in UTTS}
    old = recipe.sounds()
    feats_scp = (recipe.dump / "feats.scp").read_bytes()
    recipe.change_recording("utt1", cut=cut)
    assert (recipe.dump / "feats.scp").read_bytes() == feats_scp  # the list tells nothing
    recipe.decode()
    recipe.decode(out=tmp_path / "fresh")
    assert recipe.sounds() == recipe.sounds(tmp_path / "fresh")
    assert recipe.sounds()["utt1"] != old["utt1"]
    assert (recipe.out / "wav/utt0.wav").stat().st_mtime_ns == before["utt0"]  # nothing of it has changed
    samples = soundfile.info(recipe.out / "wav/utt1.wav").frames
    assert samples == len(open_feats(recipe.dump / "feats.scp")["utt1"]) * tiny_corpus.HOP


def test_other_weights_and_options_in_one_folder(recipe: Recipe, tmp_path: Path) -> None:
    recipe.decode("--temperature", "0.5")
    for number, (change, options) in enumerate(
        [
            (None, ["--temperature", "0.9"]),
            (None, ["--temperature", "0.9", "--seed", "1"]),
            (None, ["--temperature", "0.9", "--seed", "1", "--denoiser_strength", "0.1"]),
            (recipe.train, ["--temperature", "0.9"]),
            (None, []),  # the model's own
        ]
    ):
        old = recipe.sounds()
        if change is not None:
            change()
        recipe.decode(*options)
        recipe.decode(*options, out=tmp_path / str(number))
        assert recipe.sounds() == recipe.sounds(tmp_path / str(number))
        assert all(recipe.sounds()[utt] != old[utt] for utt in UTTS), options
    before = {utt: (recipe.out / f"wav/{utt}.wav").stat().st_mtime_ns for utt in UTTS}
    recipe.decode("--temperature", "0.8")  # that is the model's own
    recipe.decode("--batch_size", "2")  # changes nothing
    assert {utt: (recipe.out / f"wav/{utt}.wav").stat().st_mtime_ns for utt in UTTS} == before


def test_a_kill_between_sound_and_list_deceives_nobody(recipe: Recipe, tmp_path: Path) -> None:
    recipe.decode()
    good = recipe.sounds()
    recipe.decode("--temperature", "0.1", out=tmp_path / "other")
    shutil.copy(tmp_path / "other/wav/utt0.wav", recipe.out / "wav/utt0.wav")  # then a kill came
    with open(recipe.out / "made_of", "a") as file:
        file.write("utt1 sound=12")  # or here
    recipe.decode()
    assert recipe.sounds() == good
    shutil.move(recipe.out / "made_of", tmp_path)  # of an older version: nobody knows
    (recipe.out / "wav/utt0.wav").write_bytes(recipe.sounds(tmp_path / "other")["utt0"])
    recipe.decode()
    assert recipe.sounds() == good


def test_a_tts_run_that_was_written_again(recipe: Recipe, tmp_path: Path) -> None:
    run = tmp_path / "tts/exp/tts_x/decode/eval1"
    (run / "denorm").mkdir(parents=True)
    feats = dict(open_feats(recipe.dump / "feats.scp"))
    for utt, values in feats.items():
        np.save(run / "denorm" / f"{utt}.npy", values)
    (run / "denorm/feats.scp").write_text("".join(f"{utt} {run}/denorm/{utt}.npy\n" for utt in feats))
    recipe.decode("--tts_dir", str(run))
    old = recipe.sounds()
    np.save(run / "denorm/utt1.npy", feats["utt1"] - 0.1)
    recipe.decode("--tts_dir", str(run))
    recipe.decode("--tts_dir", str(run), out=tmp_path / "fresh")
    assert recipe.sounds() == recipe.sounds(tmp_path / "fresh")
    assert (recipe.sounds()["utt0"], recipe.sounds()["utt1"]) != (old["utt0"], old["utt1"])
    assert recipe.sounds()["utt0"] == old["utt0"]


def test_scoring_refuses_old_sound(recipe: Recipe) -> None:
    recipe.decode()
    recipe.score()
    scores = json.loads((recipe.out / "scoring/scores.json").read_text())
    assert scores["weights"] == weights_checksum(recipe.model) == read_sources(recipe.out)["utt0"]["weights"]
    message = recipe.refused("score", "--inference_args=--temperature 0.3")
    assert "utt0" in message and "temperature is 0.8" in message and "but 0.3 now" in message
    now = weights_checksum(recipe.model)
    recipe.train()
    message = recipe.refused("score")  # stage 4 alone: the new likelihood beside old distances
    assert f"weights is {now}" in message and f"but {weights_checksum(recipe.model)} now" in message
    recipe.decode()
    recipe.score()
    recipe.change_recording("utt1")
    message = recipe.refused("score")
    assert "utt1" in message and "feats is" in message and "--stage 3" in message
    recipe.decode()
    recipe.score()
    (recipe.out / "wav/utt0.wav").write_bytes((recipe.out / "wav/utt1.wav").read_bytes())
    assert "utt0" in (message := recipe.refused("score")) and "sound is" in message


def test_griffin_lim_follows_the_features(recipe: Recipe) -> None:
    recipe.decode()
    recipe.score("--griffin_lim")
    wavs = {utt: recipe.out / f"scoring/griffin_lim/wav/{utt}.wav" for utt in UTTS}
    before = {utt: (path.read_bytes(), path.stat().st_mtime_ns) for utt, path in wavs.items()}
    recipe.change_recording("utt1")  # of equal length: the lists stay as they are
    recipe.decode()
    recipe.score("--griffin_lim")
    assert wavs["utt1"].read_bytes() != before["utt1"][0]
    assert wavs["utt0"].stat().st_mtime_ns == before["utt0"][1]


def test_the_report_refuses_old_scores_and_leaves_out_others(recipe: Recipe, caplog: pytest.LogCaptureFixture) -> None:
    recipe.decode()
    recipe.score()
    sweep.main(
        [f"--model_file={recipe.model}", f"--dump_dir={recipe.folder / 'dump'}", "--sets=dev"]
        + ["--temperatures", "0.3", "0.6"]
    )
    page = recipe.report()
    assert "temperature 0.3" in page and "Scores against the temperature" in page
    recipe.decode("--seed", "4")
    message = recipe.refused("report")
    assert "decode/dev/scoring/scores.json isn't of now" in message and "isn't the audio that was scored" in message
    recipe.score()
    recipe.report()
    recipe.train()
    assert "they are of weights" in recipe.refused("report")
    recipe.decode()
    recipe.score()
    page = recipe.report()
    assert "temperature 0.3" not in page and "Scores against the temperature" not in page
    assert "temperature0.3_model/dev/scoring/scores.json is left out" in caplog.text
    assert "sweep.png is left out" in caplog.text
    (recipe.dump / "utt0.wav").write_bytes((recipe.dump / "utt1.wav").read_bytes())
    assert "utt0.wav isn't the audio" in recipe.refused("report")


def test_packing_refuses_old_scores(recipe: Recipe) -> None:
    recipe.decode()
    recipe.score()
    recipe.pack()
    then = weights_checksum(recipe.model)
    recipe.train()
    message = recipe.refused("pack")  # new weights with old scores and sample
    assert then in message and weights_checksum(recipe.model) in message and "--stage 3" in message
    recipe.decode()
    message = recipe.refused("pack")
    assert "scores.json" in message
    recipe.score()
    recipe.pack()
    other = recipe.model.with_name("other.pth")
    states = torch.load(recipe.model)
    next(iter(states.values())).add_(0.01)
    torch.save(states, other)
    recipe.model = other
    assert "those to be packed are" in recipe.refused("pack")
    recipe.model = recipe.model.with_name("model.pth")
    (recipe.out / "scoring/scores.json").unlink()
    assert "scores.json is missing" in recipe.refused("pack")


def test_versas_results_are_of_the_audio_they_were_asked_for(recipe: Recipe, caplog: pytest.LogCaptureFixture) -> None:
    recipe.decode()
    recipe.score()
    result = recipe.out / "scoring/versa/result.jsonl"
    result.write_text("".join(json.dumps({"key": utt, "utmos": 3.0}) + "\n" for utt in UTTS))
    recipe.score()
    assert list(read_scp(recipe.out / "scoring/utt2utmos")) == list(UTTS)
    recipe.decode("--seed", "4")
    recipe.score()
    assert "is of other audio" in caplog.text and not result.exists()
    assert result.with_name("result.jsonl.old").exists()
    names = {
        column["name"]
        for column in json.loads((recipe.out / "scoring/scores.json").read_text())["systems"][0]["columns"]
    }
    assert "utmos" not in names


def test_likelihoods_of_remade_audio_do_not_join(recipe: Recipe, caplog: pytest.LogCaptureFixture) -> None:
    recipe.decode()
    recipe.score()
    other = recipe.folder / "other/decode/dev"
    shutil.copytree(recipe.out, other)
    lines = (other / "wav/wav.scp").read_text().replace(str(recipe.out), str(other))  # files of its own
    (other / "wav/wav.scp").write_text(lines)
    recipe.score(f"--compare=other={other.parent}")
    columns = json.loads((recipe.out / "scoring/scores.json").read_text())["systems"][1]["columns"]
    assert "log_likelihood" in {column["name"] for column in columns}
    recipe.decode("--seed", "4", out=other)
    recipe.score(f"--compare=other={other.parent}")
    columns = json.loads((recipe.out / "scoring/scores.json").read_text())["systems"][1]["columns"]
    assert "log_likelihood" not in {column["name"] for column in columns}
    assert "no log-likelihood of other" in caplog.text
