"""Scores and sound of features that have changed since, in place: refused, left out or made anew."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from flowavenet_plugin.bin import evaluate, sweep
from flowavenet_plugin.bin.scoring_files import write_results
from flowavenet_plugin.data.provenance import feats_checksum, read_sources
from flowavenet_plugin.data.scp import open_feats, read_scp
from tiny_recipe import UTTS, Recipe


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return Recipe(tmp_path)


def quieter(feats: np.ndarray) -> np.ndarray:
    return feats - 0.1


def score_alone(recipe: Recipe, *options: str) -> None:
    """Score without a model and without features."""
    command = [f"--ref_scp={recipe.dump}/wav.scp", f"--gen_scp={recipe.out}/wav/wav.scp"]
    evaluate.main([*command, f"--output_dir={recipe.out}/scoring", *options])


def scores_of(recipe: Recipe) -> dict:
    return json.loads((recipe.out / "scoring/scores.json").read_text())


@pytest.mark.parametrize("alone", [False, True])
def test_report_and_packing_refuse_scores_of_features_that_changed(recipe: Recipe, alone: bool) -> None:
    """Alone: nobody told the scoring about features, but the sounds know theirs."""
    recipe.decode()
    score_alone(recipe) if alone else recipe.score()
    recipe.report()
    recipe.pack()
    then = feats_checksum(open_feats(recipe.dump / "feats.scp")["utt1"])
    recipe.change_feats(quieter)
    now = feats_checksum(open_feats(recipe.dump / "feats.scp")["utt1"])
    for what in ("report", "pack"):
        message = recipe.refused(what)
        for word in ("utt1", str(recipe.dump / "feats.scp"), then, now, "scores.json", "--stage 3"):
            assert word in message, what
    recipe.decode()
    recipe.score()
    recipe.report()
    recipe.pack()


def test_scores_that_say_nothing_of_features_are_of_an_older_version(recipe: Recipe) -> None:
    recipe.decode()
    recipe.score()
    path = recipe.out / "scoring/scores.json"
    scores = scores_of(recipe)
    assert [entry["scp"] for entry in scores["features"]] == [str(recipe.dump / "feats.scp")]
    assert list(scores["features"][0]["checksums"]) == list(UTTS)
    path.write_text(json.dumps({key: value for key, value in scores.items() if key != "features"}))
    for what in ("report", "pack"):
        assert "older version" in recipe.refused(what)


def test_features_that_are_gone_say_nothing_and_damaged_ones_are_told(recipe: Recipe) -> None:
    recipe.decode()
    recipe.score()
    (recipe.dump / "feats.ark").write_bytes((recipe.dump / "feats.ark").read_bytes()[:-100])
    assert "features can't be read: utt1" in recipe.refused("report")
    (recipe.dump / "feats.scp").unlink()
    recipe.report()


def test_a_sweep_of_other_features_is_left_out(recipe: Recipe, caplog: pytest.LogCaptureFixture) -> None:
    """Its sound is what it was, and so are the weights."""
    recipe.decode()
    recipe.score()
    picture = "Scores against the temperature"
    options = [f"--model_file={recipe.model}", f"--dump_dir={recipe.folder / 'dump'}", "--sets=dev"]
    sweep.main([*options, "--temperatures", "0.3", "0.6"])
    page = recipe.report()
    assert "temperature 0.3" in page and picture in page
    recipe.change_feats(quieter)
    recipe.decode()
    recipe.score()
    page = recipe.report()
    assert "temperature 0.3" not in page and picture not in page
    assert "sweep.png is left out: utt1: the features in" in caplog.text
    sweep.main([*options, "--temperatures", "0.3", "0.6"])
    assert picture in recipe.report()
    shutil.rmtree(recipe.folder / "exp/temperature0.3_model")
    assert picture not in recipe.report() and "is gone" in caplog.text


def test_griffin_lim_is_of_the_features_and_their_settings(recipe: Recipe) -> None:
    """Griffin-Lim reads the settings, so its figures go with them, though the features stay."""
    recipe.decode()
    options = ["--griffin_lim", f"--feats_scp={recipe.dump}/feats.scp"]
    score_alone(recipe, *options)
    before = {utt: (recipe.out / f"scoring/griffin_lim/wav/{utt}.wav").read_bytes() for utt in UTTS}
    recipe.report()
    settings = recipe.dump / "feats_extract.yaml"
    old = settings.read_text()
    assert "fmax: 4000" in old
    settings.write_text(old.replace("fmax: 4000", "fmax: 3000"))
    for what in ("report", "pack"):
        assert f"the settings in {settings} have the checksum" in recipe.refused(what)
    score_alone(recipe, *options)
    recipe.report()
    after = {utt: (recipe.out / f"scoring/griffin_lim/wav/{utt}.wav").read_bytes() for utt in UTTS}
    assert all(after[utt] != before[utt] for utt in UTTS)
    settings.write_text(old)  # a voice speaks from features of its own settings alone
    recipe.change_feats(quieter)
    recipe.decode()
    assert "isn't the audio that was scored" in recipe.refused("report")
    score_alone(recipe, *options)
    kept = read_sources(recipe.out / "scoring/griffin_lim")
    assert kept["utt1"]["feats"] == feats_checksum(open_feats(recipe.dump / "feats.scp")["utt1"])
    settings.write_text(old.replace("fmax: 4000", "fmax: 3000"))  # compared by hand, it is of now as any other
    with pytest.raises(SystemExit, match="settings is"):
        score_alone(recipe, f"--compare=gl={recipe.out}/scoring/griffin_lim")


def test_scores_without_griffin_lim_have_no_use_for_settings(recipe: Recipe) -> None:
    recipe.decode()
    recipe.score()
    settings = recipe.dump / "feats_extract.yaml"
    settings.write_text(settings.read_text().replace("fmax: 4000", "fmax: 3000"))
    recipe.report()


def make_run(recipe: Recipe, kind: str) -> Path:
    """A run of a TTS model with the features of the corpus: as they are, or normalised with statistics beside it."""
    run = recipe.folder / "tts/exp/tts_x/decode/dev"
    (run / kind).mkdir(parents=True)
    for utt, values in open_feats(recipe.dump / "feats.scp").items():
        np.save(run / kind / f"{utt}.npy", values if kind == "denorm" else values + 1.0)
    lines = [f"{utt} {run}/{kind}/{utt}.npy\n" for utt in UTTS]
    (run / kind / "feats.scp").write_text("".join(lines))
    dim = values.shape[1]
    np.savez(run / "stats.npz", count=1, sum=-np.ones(dim), sum_square=2 * np.ones(dim))
    return run


@pytest.mark.parametrize("kind", ["denorm", "norm"])
def test_a_tts_run_that_changed_after_scoring(recipe: Recipe, kind: str) -> None:
    run = make_run(recipe, kind)
    stats = ["--tts_stats", str(run / "stats.npz")] if kind == "norm" else []
    recipe.decode("--tts_dir", str(run), *stats)
    score_alone(recipe)
    recipe.report()
    if kind == "norm":
        dim = open_feats(recipe.dump / "feats.scp")["utt0"].shape[1]
        np.savez(run / "stats.npz", count=1, sum=np.zeros(dim), sum_square=np.ones(dim))
    else:
        np.save(run / "denorm/utt0.npy", np.load(run / "denorm/utt0.npy") - 0.1)
    for what in ("report", "pack"):
        assert f"utt0: the features in {run} have the checksum" in recipe.refused(what)
    with pytest.raises(SystemExit, match="utt0: .*feats is"):
        score_alone(recipe)
    recipe.decode("--tts_dir", str(run), *stats)
    score_alone(recipe)
    recipe.report()


@pytest.mark.parametrize(
    ("spelling", "whose"),
    [("symlink", "decoding"), ("symlink", "scoring"), ("dots", "scoring"), ("relative", "decoding")],
)
def test_a_list_that_is_spelt_otherwise_is_the_same(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch, spelling: str, whose: str
) -> None:
    plain = recipe.dump
    (recipe.folder / "link").symlink_to(recipe.folder / "dump")
    monkeypatch.chdir(recipe.folder)
    other = {
        "symlink": recipe.folder / "link/dev",
        "dots": Path(f"{plain}/../dev"),
        "relative": Path(os.path.relpath(plain)),
    }[spelling]
    recipe.dump = other if whose == "decoding" else plain
    recipe.decode()
    recipe.dump = plain if whose == "decoding" else other
    recipe.score()
    recipe.change_feats(quieter)
    message = recipe.refused("score")
    assert "utt1" in message and "feats is" in message


def other_system(recipe: Recipe) -> Path:
    """Another decoding of the set, which is of now."""
    other = recipe.folder / "other/dev"
    recipe.decode("--seed", "4", out=other)
    return other


def test_stale_sound_of_a_compared_system_is_refused(recipe: Recipe) -> None:
    other = other_system(recipe)
    recipe.decode()
    options = f"--compare=other={other.parent}"
    recipe.score(options)
    recipe.change_feats(quieter)
    recipe.decode()
    message = recipe.refused("score", options)
    assert f"utt1: {other}/wav/utt1.wav isn't what decoding would make now: feats is" in message
    recipe.decode("--seed", "4", out=other)
    recipe.score(options)
    (other / "wav/utt0.wav").write_bytes((other / "wav/utt1.wav").read_bytes())
    assert "sound is" in recipe.refused("score", options)
    recipe.decode("--seed", "4", out=other)
    recipe.score(options)
    recipe.decode("--seed", "5", out=other)
    message = recipe.refused("report")
    assert "utt0" in message and f"{other}/wav/utt0.wav isn't the audio that was scored" in message


def test_stale_sound_in_a_list_elsewhere_is_refused(recipe: Recipe) -> None:
    """A list of some of the sounds doesn't lie beside what tells what they were made of."""
    other = other_system(recipe)
    recipe.decode()
    (recipe.folder / "some.scp").write_text((other / "wav/wav.scp").read_text())
    options = f"--compare=other={recipe.folder}/some.scp"
    recipe.score(options)
    (other / "wav/utt0.wav").write_bytes((other / "wav/utt1.wav").read_bytes())
    assert "sound is" in recipe.refused("score", options)


def test_likelihoods_of_other_features_do_not_join(recipe: Recipe, caplog: pytest.LogCaptureFixture) -> None:
    """Those of a compared experiment, whose sounds are of a TTS model's features and stay as they are."""
    run, other = make_run(recipe, "denorm"), recipe.folder / "other/dev"
    recipe.out, own = other, recipe.out
    recipe.decode("--tts_dir", str(run))
    recipe.score()
    recipe.out = own
    recipe.decode()
    recipe.score(f"--compare=other={other.parent}")
    names = [column["name"] for column in scores_of(recipe)["systems"][1]["columns"]]
    assert "log_likelihood" in names
    recipe.change_feats(quieter)
    recipe.decode()
    recipe.score(f"--compare=other={other.parent}")
    names = [column["name"] for column in scores_of(recipe)["systems"][1]["columns"]]
    assert "log_likelihood" not in names and "lsd" in names
    assert "no log-likelihood of other" in caplog.text and "is of other features: utt1" in caplog.text


@pytest.mark.parametrize("what", ["recording", "transcript"])
def test_versas_results_are_of_the_recordings_and_transcripts(recipe: Recipe, what: str) -> None:
    text = recipe.folder / "text"
    text.write_text("utt0 some words\nutt1 more words\n")
    recipe.decode()
    score_alone(recipe, f"--text={text}")
    result = recipe.out / "scoring/versa/result.jsonl"
    result.write_text("".join(json.dumps({"key": utt, "spk_similarity": 0.5}) + "\n" for utt in UTTS))
    score_alone(recipe, f"--text={text}")
    figures = recipe.out / "scoring/utt2spk_similarity"
    assert list(read_scp(figures)) == list(UTTS)
    if what == "transcript":
        text.write_text("utt0 some words\nutt1 other words\n")
    else:
        feats = (recipe.dump / "feats.ark").read_bytes()
        recipe.change_recording("utt1")
        (recipe.dump / "feats.ark").write_bytes(feats)
    score_alone(recipe, f"--text={text}")
    assert not result.exists() and result.with_name("result.jsonl.old").exists()
    assert not figures.exists()  # a file per figure, and none of an earlier scoring


def test_figures_of_an_earlier_scoring_are_taken_away(recipe: Recipe) -> None:
    recipe.decode()
    recipe.score()
    assert (recipe.out / "scoring/utt2log_likelihood").exists()
    (recipe.out / "scoring/utt2spk").write_text("utt0 somebody\n")  # not a figure
    score_alone(recipe)
    assert not (recipe.out / "scoring/utt2log_likelihood").exists()
    assert (recipe.out / "scoring/utt2lsd").exists() and (recipe.out / "scoring/utt2spk").exists()


def test_a_kill_before_the_table_leaves_no_scores_of_now(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores are written last, so that they never speak for an older table or picture."""
    recipe.decode()
    recipe.score()
    recipe.decode("--seed", "4")

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flowavenet_plugin.bin.scoring_files.write_results", killed)
    with pytest.raises(KeyboardInterrupt):
        recipe.score()
    assert "isn't the audio that was scored" in recipe.refused("pack")
    monkeypatch.setattr("flowavenet_plugin.bin.scoring_files.write_results", write_results)
    recipe.score()
    recipe.pack()


def test_the_sample_is_of_what_was_scored(recipe: Recipe) -> None:
    """Not of whatever stands first in a list that was written since."""
    recipe.decode()
    recipe.score()
    lines = (recipe.out / "wav/wav.scp").read_text()
    (recipe.out / "wav/wav.scp").write_text(f"another {recipe.dump}/utt1.wav\n{lines}")
    recipe.pack()
    shutil.unpack_archive(recipe.folder / "voice.zip", recipe.folder / "unpacked")
    assert (recipe.folder / "unpacked/sample.wav").read_bytes() == (recipe.out / "wav/utt0.wav").read_bytes()
