"""Each study of conf/tuning is the paper's configuration with one thing changed, and one command runs them all."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from flowavenet_plugin.vocoder.settings import VocoderSettings

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf"


@pytest.mark.parametrize(
    ("study", "key", "value"),
    [("causal", "causal", True), ("singlescale", "block_per_split", 8), ("additive", "affine", False)],
)
def test_a_study_changes_one_key_of_the_papers_configuration(study: str, key: str, value: object) -> None:
    paper = yaml.safe_load((CONF / "train_flowavenet.yaml").read_text())
    changed = yaml.safe_load((CONF / "tuning" / f"train_flowavenet_{study}.yaml").read_text())
    assert getattr(VocoderSettings, key) != value
    assert changed == {**paper, "vocoder_conf": {key: value}}


def test_every_configuration_of_the_folder_is_a_study_that_is_checked() -> None:
    names = {path.name for path in (CONF / "tuning").iterdir()}
    assert names == {f"train_flowavenet_{study}.yaml" for study in ("causal", "singlescale", "additive")}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """local/studies.sh with the configurations, beside a run.sh that only writes down its options, a call a line."""
    folder = tmp_path / "a recipe"
    shutil.copytree(CONF, folder / "conf")
    (folder / "local").mkdir()
    shutil.copy(ROOT / "local/studies.sh", folder / "local")
    run = folder / "run.sh"
    run.write_text('#!/usr/bin/env bash\n{ printf \'%s\\t\' "$@"; echo; } >> "${0%/*}/calls"\n')
    run.chmod(0o755)
    return folder


def studies(recipe: Path, *options: str) -> subprocess.CompletedProcess:
    return subprocess.run([recipe / "local/studies.sh", *options], capture_output=True, text=True, check=False)


def calls(recipe: Path) -> list[dict[str, str]]:
    """Options of each call of run.sh; of an option that is there twice, run.sh takes the last."""
    lines = [line.split("\t")[:-1] for line in (recipe / "calls").read_text().splitlines()]
    return [dict(zip(words[::2], words[1::2], strict=True)) for words in lines]


def test_one_command_trains_all_and_compares_them(recipe: Path) -> None:
    done = studies(
        recipe,
        "--ngpu",
        "0",
        "--expdir=myexp",
        "--stop_stage",
        "5",
        "--train_args",
        "--vocoder_conf n_block=6 --max_epoch 1",
    )
    assert done.returncode == 0, done.stderr
    found = calls(recipe)
    assert [call["--tag"] for call in found] == ["study_causal", "study_singlescale", "study_additive", "study_paper"]
    for call in found:
        name = call["--tag"].removeprefix("study_")
        config = "train_flowavenet.yaml" if name == "paper" else f"tuning/train_flowavenet_{name}.yaml"
        assert call["--train_config"] == str(recipe / "conf" / config)
        assert (call["--ngpu"], call["--stop_stage"], call["--train_args"]) == (
            "0",
            "4",
            "--vocoder_conf n_block=6 --max_epoch 1",
        )
        assert ("--skip_data_prep" in call) == (name != "causal")
        assert ("--compare" in call) == (name == "paper")
    tag = found[0]["--inference_tag"]
    pairs = [f"{name}=myexp/voc_study_{name}/{tag}" for name in ("causal", "singlescale", "additive")]
    assert found[-1]["--compare"] == " ".join(pairs)


def test_one_study_may_be_chosen(recipe: Path) -> None:
    assert studies(recipe, "--studies=additive", "--tag", "mine").returncode == 0
    assert [call["--tag"] for call in calls(recipe)] == ["mine_additive", "mine_paper"]
    assert calls(recipe)[-1]["--compare"] == "additive=exp/voc_mine_additive/study"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--studies", "causal wider"], "no conf/tuning/train_flowavenet_wider.yaml"),
        (["--train_config", "x.yaml"], "--train_config is set here"),
        (["--compare=x=y"], "--compare is set here"),
        (["--studies"], "option --studies needs a value"),
    ],
)
def test_what_cannot_be_a_study_is_refused_before_training(recipe: Path, options: list[str], message: str) -> None:
    done = studies(recipe, *options)
    assert done.returncode == 1
    assert message in done.stderr
    assert not (recipe / "calls").exists()
