"""Weights that run.sh is given: a packed model starts a training; a pickle in any option's file is refused."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
import yaml

import marker_pickles
import stub_cluster
import tiny_corpus
import tiny_voice
from flowavenet_plugin.data.features import full_settings

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Return a recipe's folder after stage 1, with a voice in voice/."""
    for name in ("tr_no_dev", "dev", "eval1"):
        dump = tiny_corpus.make_corpus(tmp_path / "dump/fbank" / name, n_utts=2)
        settings = dict(feats_extract="fbank", feats_extract_conf=full_settings("fbank", tiny_corpus.FEATS_CONF))
        (dump / "feats_extract.yaml").write_text(yaml.safe_dump(settings))
    conf = dict(vocoder_conf=tiny_corpus.VOCODER_CONF, segment_length=512, batch_size=2, num_workers=0, max_epoch=1)
    (tmp_path / "train.yaml").write_text(yaml.safe_dump({**conf, "num_iters_per_epoch": 1, "optim": "sgd"}))
    tiny_voice.make_voice(tmp_path / "voice")
    stub_cluster.make_cluster(tmp_path / "bin")
    return tmp_path


def run(recipe: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run run.sh on the CPU of this machine."""
    command = [
        str(ROOT / "run.sh"),
        "--recipe_dir",
        str(recipe),
        "--train_config",
        "train.yaml",
        "--ngpu",
        "0",
        *options,
    ]
    for key, value in tiny_corpus.FEATS_CONF.items():
        command += [f"--{'n_shift' if key == 'hop_length' else key}", str(value)]
    env = stub_cluster.environment(recipe / "bin", "local")
    return subprocess.run(command, env=env, capture_output=True, text=True)


@pytest.mark.parametrize("form", ["zip", "folder", "module"])
def test_resume_takes_what_load_vocoder_takes(recipe: Path, form: str) -> None:
    weights = torch.load(recipe / "voice/model.pth", weights_only=True)
    path = recipe / "voice"
    if form == "zip":
        path = Path(shutil.make_archive(str(recipe / "packed"), "zip", recipe / "voice"))
    elif form == "module":
        path = recipe / "parallel.pth"
        torch.save({f"module.{name}": value for name, value in weights.items()}, path)
    done = run(
        recipe,
        "--stage",
        "2",
        "--stop_stage",
        "2",
        "--tag",
        "x",
        "--resume",
        str(path),
        "--train_args",
        "--optim_conf lr=0",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = torch.load(recipe / "exp/voc_x/1epoch.pth", weights_only=True)
    kept = [name for name in weights if "actnorm" not in name and "feats_" not in name]  # which start from the data
    assert len(kept) > 20 and all(torch.equal(found[name], weights[name]) for name in kept)


def pack(recipe: Path, name: str) -> None:
    """Put the voice into model.zip, its weights under a name."""
    content = recipe / "content"
    shutil.rmtree(content, ignore_errors=True)
    content.mkdir()
    shutil.copy(recipe / "voice/config.yaml", content)
    shutil.copy(recipe / "voice/model.pth", content / name)
    shutil.make_archive(str(recipe / "model"), "zip", content)


def test_another_model_of_the_same_name_is_not_the_earlier_one(recipe: Path) -> None:
    """Its weights may be called otherwise; those of the earlier model still lie in the folder."""
    options = ["--stage", "3", "--stop_stage", "3", "--download_model", str(recipe / "model.zip"), "--test_sets", ""]
    for name in ("valid.loss.best.pth", "ema.pth"):
        pack(recipe, name)
        done = run(recipe, *options)
        assert done.returncode == 0, done.stderr[-3000:]
        assert f"with exp/model/{name}" in done.stdout
    sources = [path.parent.name for path in recipe.glob("exp/model/*/dev/made_of")]
    assert sources == ["dev", "dev"]
    done = run(recipe, *options[:-4], "--download_model", str(recipe / "train.yaml"))
    assert done.returncode == 1 and "not a zip file" in done.stderr


def test_a_model_does_not_replace_an_experiment_of_its_name(recipe: Path) -> None:
    pack(recipe, "model.pth")
    own = recipe / "exp/model"
    own.mkdir(parents=True)
    for name in ("checkpoint.pth", "config.yaml", "valid.loss.best.pth"):
        (own / name).write_text("mine")
    done = run(recipe, "--stage", "3", "--stop_stage", "3", "--download_model", str(recipe / "model.zip"))
    assert done.returncode == 1 and "rename the zip file" in done.stderr
    assert {path.name: path.read_text() for path in own.iterdir()} == dict.fromkeys(
        ("checkpoint.pth", "config.yaml", "valid.loss.best.pth"), "mine"
    )


#: Option -> the stage that reads its file, and the file.
OPTIONS = {
    "--resume": ("2", "{evil}/evil.pth"),
    "--resume of a zip": ("2", "{evil}/evil.zip"),
    "--inference_model": ("3", "{evil}/evil.pth"),
    "--download_model": ("3", "{evil}/evil.zip"),
    "--trained_model": ("1", "evil={evil}/everything"),
    "--tts_stats": ("3", "{evil}/evil.npz"),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_no_option_of_the_recipe_runs_a_pickle(recipe: Path, option: str) -> None:
    marker_pickles.make_files(recipe / "evil", recipe / "mark", recipe / "voice/model.pth")
    stage, value = OPTIONS[option]
    options = ["--stage", stage, "--stop_stage", stage, option.split()[0], value.format(evil=recipe / "evil")]
    if option == "--trained_model":
        options += ["--skip_data_prep", "true"]
    if option == "--tts_stats":
        shutil.copytree(recipe / "dump/fbank/dev", recipe / "tts/decode/dev/norm")
        options += ["--tts_dir", str(recipe / "tts/decode/dev"), "--inference_model", str(recipe / "voice/model.pth")]
    done = run(recipe, *options)
    assert not (recipe / "mark").exists()
    assert done.returncode == 1 and "evil" in done.stderr.split("-----")[1], done.stderr
    assert not list(recipe.glob("exp/voc_*/config.yaml")) or option == "--download_model"
