"""Figures that natural speech has, too: a row of its own in every table, which no system competes with."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from flowavenet_plugin.bin import evaluate, sweep
from flowavenet_plugin.data.scp import read_audio, read_scp
from flowavenet_plugin.evaluation import scores
from flowavenet_plugin.evaluation.page import score_table
from flowavenet_plugin.evaluation.speech import Speech
from flowavenet_plugin.evaluation.table import Column, Row
from tiny_recipe import UTTS, Recipe

HEADING = "loudness"


def loudness(_: Speech, speech: Speech) -> float:
    """Stands for a predictor of opinion scores."""
    return 10.0 * float(np.abs(speech.wav).max())


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    """A scored recipe with a figure of sounds alone."""
    lsd = next(metric for metric in scores.METRICS if metric.name == "lsd")
    monkeypatch.setattr(scores, "METRICS", (lsd, scores.Metric("loudness", HEADING, True, loudness, alone=True)))
    recipe = Recipe(tmp_path)
    recipe.decode()
    recipe.score("--griffin_lim")
    return recipe


def rows(text: str) -> dict[str, list[str]]:
    """Markdown tables: first cell -> the others."""
    lines = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return {line[0].strip(): [cell.strip() for cell in line[1:]] for line in lines}


def natural_mean(recipe: Recipe) -> str:
    peaks = [10.0 * np.abs(read_audio(str(recipe.dump / f"{utt}.wav"), utt)[0]).max() for utt in UTTS]
    return f"{np.mean(peaks):.3f}"


def test_the_table_of_a_set(recipe: Recipe) -> None:
    table = rows((recipe.out / "scoring/results.md").read_text())
    assert list(table)[-3:] == ["dev", "dev griffin_lim", "dev natural"]
    heads = table["dataset"]
    natural = dict(zip(heads, table["dev natural"], strict=True))
    assert natural["log-spectral distance (dB)"] == natural["log-likelihood (nats/sample)"] == "-"
    assert natural[HEADING].startswith(natural_mean(recipe)) and natural["utterances"] == "2"
    own = dict(zip(heads, table["dev"], strict=True))
    assert own[HEADING] != natural[HEADING] and own[HEADING] != "-"
    figures = read_scp(recipe.out / "scoring/compare/natural/utt2loudness")
    assert list(figures) == list(UTTS)
    stored = json.loads((recipe.out / "scoring/scores.json").read_text())["natural_columns"]
    assert [column["name"] for column in stored] == ["loudness"]
    assert stored[0]["values"]["utt0"] == pytest.approx(float(figures["utt0"]), abs=1e-5)


def test_report_results_and_card(recipe: Recipe) -> None:
    page = recipe.report()
    assert re.search(r'<th scope="col">natural</th></tr>', page)  # the last system
    assert "To hear: 2 of 2 utterances, the recordings and 2 of 2 systems." in page  # it isn't one of them
    table = rows((recipe.folder / "exp/RESULTS.md").read_text())
    assert table["dev natural"][table["dataset"].index(HEADING)].startswith(natural_mean(recipe))
    recipe.pack()
    card = rows((recipe.folder / "voice_README.md").read_text())
    assert card["dev natural"] == rows((recipe.out / "scoring/results.md").read_text())["dev natural"]


def test_a_sweep_has_one_row_of_natural_speech(recipe: Recipe) -> None:
    options = [f"--model_file={recipe.model}", f"--dump_dir={recipe.folder / 'dump'}", "--sets=dev"]
    sweep.main([*options, "--temperatures", "0.3", "0.6"])
    table = rows((recipe.folder / "exp/sweep/sweep.md").read_text())
    names = [name for name in table if name.startswith("dev")]
    assert names == ["dev temperature 0.3", "dev temperature 0.6", "dev natural"]
    assert table["dev natural"][table["dataset"].index(HEADING)].startswith(natural_mean(recipe))
    sweep.main([*options, "--temperatures", "0.3", "--leave_out", "loudness"])
    table = rows((recipe.folder / "exp/sweep/sweep.md").read_text())
    assert "dev natural" not in table and HEADING not in table["dataset"]


def test_what_is_left_out_leaves_nothing(recipe: Recipe) -> None:
    recipe.score("--griffin_lim", "--leave_out", "loudness")
    text = (recipe.out / "scoring/results.md").read_text()
    assert "dev natural" not in rows(text) and HEADING not in rows(text)["dataset"]
    assert not list((recipe.out / "scoring").rglob("utt2loudness"))
    message = recipe.refused("score", "--leave_out", "lsd", "mos")
    assert "--leave_out: there is no figure 'mos'; there are: lsd, loudness" in message
    shutil.rmtree(recipe.out / "scoring")
    with pytest.raises(SystemExit, match="--leave_out"):
        evaluate.main(["--ref_scp=x", "--gen_scp=y", f"--output_dir={recipe.out}/scoring", "--leave_out", "mos"])
    assert not (recipe.out / "scoring").exists()


def test_the_best_is_one_of_the_systems() -> None:
    figure = {name: Column("x", "X", True, {"a": value}) for name, value in dict(one=1.0, two=2.0, natural=3.0).items()}
    table = [Row(name, 1, [column], natural=name == "natural") for name, column in figure.items()]
    assert re.findall(r'class="best">([0-9.]+)<', score_table(table)) == ["2.000"]
    assert re.findall(r'class="best">([0-9.]+)<', score_table([table[0], table[2]])) == []  # one system alone
