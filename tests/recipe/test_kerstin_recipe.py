"""egs/kerstin from a copy of the corpus to scores: pulses, sampled speech and a network that reads mels."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from flowavenet_plugin import load_vocoder
from flowavenet_plugin.data.scp import read_scp

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "tests" / "kerstin_mini"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Return the recipe's folder in a copy of what it needs of the repository."""
    for name in ("run.sh", "path.sh", "cmd.sh", "db.sh", "conf", "local", "utils", "flowavenet_plugin"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("kerstin", "voice"):
        recipe = tmp_path / "egs" / name / "voc1"
        recipe.mkdir(parents=True)
        for part in ("run.sh", "path.sh", "local", "conf"):
            source = ROOT / "egs" / name / "voc1" / part
            if source.is_dir():
                shutil.copytree(source, recipe / part)
            elif source.exists():
                shutil.copy(source, recipe / part)
    return tmp_path / "egs" / "kerstin" / "voc1"


def test_from_the_corpus_to_scores(recipe: Path) -> None:
    folders = [str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {**os.environ, "PATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}
    environment.pop("KALDI_ROOT", None)
    short = "--max_epoch 1 --num_iters_per_epoch 2 --segment_length 4096 --num_workers 0"
    command = [str(recipe / "run.sh"), "--stage", "0", "--stop_stage", "4", "--db_root", str(CORPUS), "--ngpu", "0"]
    command += ["--local_data_opts", "--num_train 4 --num_dev 1 --num_eval 1 --sha256 any", "--nj", "1"]
    command += ["--train_args", short, "--inference_nj", "1", "--temperatures", "", "--griffin_lim", "false"]
    command += ["--mel_inversion", "false", "--python", sys.executable]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert [len(read_scp(recipe / "data" / name / "wav.scp")) for name in ("tr_no_dev", "dev", "eval1")] == [4, 1, 1]
    (experiment,) = (recipe / "exp").glob("voc_train_voice*")
    log = (experiment / "train.log").read_text()
    for words in (
        "the linear prediction is fitted to 4 utterances",
        "reader_pitch=",
        "sampled_mel=",
        "log_likelihood=",
    ):
        assert words in log
    (scores,) = experiment.glob("decode_*/eval1/scoring/results.md")
    assert "log-mel distance" in scores.read_text()
    vocoder = load_vocoder(experiment / "valid.loss.best.pth")
    assert vocoder.fs == 22050 and vocoder.reader is not None
    assert torch.isfinite(vocoder.inference(vocoder.feats_mean.expand(9, -1), seed=0)).all()
