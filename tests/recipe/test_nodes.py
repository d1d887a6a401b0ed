"""Several machines by run.sh: what it starts, and that what it starts trains as one machine does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
import yaml

import stub_cluster
import tiny_corpus

ROOT = Path(__file__).resolve().parents[2]
FEATS = {**tiny_corpus.FEATS_CONF, "n_shift": tiny_corpus.HOP}
FEATS.pop("hop_length")
CONFIG = dict(
    vocoder_conf=tiny_corpus.VOCODER_CONF,
    segment_length=4096,  # whole utterances: both ways see the same data
    batch_size=4,
    train_dtype="float64",
    num_iters_per_epoch=1,
    num_workers=0,
    optim="sgd",
    optim_conf=dict(lr=0.001, momentum=0.9),
    max_epoch=3,
    log_interval=1,
    use_matplotlib=False,
    best_model_criterion=[["valid", "loss", "min"]],
)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Return a recipe's folder after stage 1."""
    for name, count in (("tr_no_dev", 8), ("dev", 4)):
        tiny_corpus.make_corpus(tmp_path / "dump/fbank" / name, n_utts=count)
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(CONFIG))
    stub_cluster.make_cluster(tmp_path / "bin")
    (tmp_path / "path.sh").write_text(f". '{ROOT}/path.sh'\n")  # what jobs source, as the recipes in egs/ have one
    (tmp_path / "bin/ssh.pl").symlink_to("slurm.pl")  # must be there; it isn't called
    return tmp_path


def train(recipe: Path, backend: str, *options: str) -> subprocess.CompletedProcess:
    """Run stage 2 with a queue."""
    command = [str(ROOT / "run.sh"), "--recipe_dir", str(recipe), "--train_config", "train.yaml", *options]
    command += ["--stage", "2", "--stop_stage", "2", "--ngpu", "0"]
    for key, value in FEATS.items():
        command += [f"--{key}", str(value)]
    env = stub_cluster.environment(recipe / "bin", backend)
    return subprocess.run(command, env=env, capture_output=True, text=True)


def test_two_nodes_by_slurm_equal_one(recipe: Path) -> None:
    for tag, backend, nodes in (("one", "local", "1"), ("two", "slurm", "2")):
        done = train(recipe, backend, "--num_nodes", nodes, "--tag", tag)
        assert done.returncode == 0, done.stderr[-3000:]
    log = (recipe / "exp/voc_two/train.log").read_text()
    for words in (
        f"srun --export=ALL {ROOT}/utils/job.sh 1 python3 -m flowavenet_plugin.bin.vocoder_train",
        "--dist_launcher slurm --dist_init_method file://",
        "--dist_backend gloo",
        "to kill on bad exit: 1",
    ):
        assert words in log, words
    asked = (recipe / "bin/asked").read_text()
    for words in ("--job-name=voc_two ", "--nodes=2 ", "--cpus-per-task=1 "):
        assert words in asked, asked
    one, two = (
        torch.load(recipe / f"exp/voc_{tag}/3epoch.pth", weights_only=True, map_location="cpu")
        for tag in ("one", "two")
    )
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-9, atol=1e-11, msg=lambda text, at=key: f"{at}: {text}")


def test_a_failing_node_fails_the_recipe(recipe: Path) -> None:
    done = train(recipe, "slurm", "--num_nodes", "2", "--tag", "bad", "--train_args", "--batch_size 1")
    assert done.returncode != 0
    assert "a batch of the training set" in done.stderr


def test_the_command_of_a_queue_with_mpirun(recipe: Path) -> None:
    done = train(recipe, "sge", "--num_nodes", "3", "--tag", "mpi")
    assert done.returncode == 0, done.stderr[-3000:]
    said = (recipe / "exp/voc_mpi/train.log").read_text()
    for words in (
        f"mpirun -np 3 {ROOT}/utils/job.sh 1 python3 -m flowavenet_plugin.bin.vocoder_train",
        "--dist_launcher mpi",
    ):
        assert words in said, words
    assert "-pe mpi 3 " in (recipe / "bin/asked").read_text()


@pytest.mark.parametrize("backend", ["slurm", "sge"])
def test_what_a_queue_refuses_is_shown(recipe: Path, backend: str) -> None:
    """Where the job didn't start there is no train.log; an older one isn't shown in its place."""
    queue = "sbatch" if backend == "slurm" else "qsub"
    (recipe / "bin" / queue).write_text("#!/bin/sh\necho error: invalid account >&2\nexit 1\n")
    (recipe / "exp/voc_x").mkdir(parents=True)
    (recipe / "exp/voc_x/train.log").write_text("of an earlier run\n# Finished at noon with status 0\n")
    done = train(recipe, backend, "--tag", "x")
    assert done.returncode == 1
    assert "the end of exp/voc_x/launch.log" in done.stderr and "error: invalid account" in done.stderr, done.stderr
    assert "of an earlier run" not in done.stderr


def test_a_folder_with_a_space(recipe: Path) -> None:
    (recipe / "a space").mkdir()
    done = train(recipe, "slurm", "--recipe_dir", str(recipe / "a space"))
    assert done.returncode == 1 and f"a space in its name: {recipe}/a space" in done.stderr


@pytest.mark.parametrize("backend, words", [("local", "needs a queue"), ("ssh", "torchrun")])
def test_backends_that_cannot(recipe: Path, backend: str, words: str) -> None:
    done = train(recipe, backend, "--num_nodes", "2")
    assert done.returncode != 0 and words in done.stderr, done.stderr
