"""Several machines by run.sh: what it starts, and that what it starts trains as one machine does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

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
#: Stands for Slurm's srun: starts two tasks on this machine, which is two machines by their environment.
SRUN = """#!/usr/bin/env bash
echo "srun $*, to kill on bad exit: ${SLURM_KILL_BAD_EXIT-no}"
[ "$1" = --export=ALL ] && shift
export SLURM_NTASKS=2 SLURM_STEP_NUM_NODES=2 SLURM_STEP_NODELIST='localhost,localhost' SLURM_LOCALID=0
status=0
SLURM_PROCID=1 SLURM_NODEID=1 "$@" & second=$!
SLURM_PROCID=0 SLURM_NODEID=0 "$@" || status=1
wait "${second}" || status=1
exit "${status}"
"""
#: Stands for Kaldi's slurm.pl and queue.pl: runs the command at once, or only says it.
QUEUE = """#!/usr/bin/env bash
said="$*"
while [[ $1 == --* ]]; do shift 2; done
log=$1; shift
echo "# ${said}" > "${log}"
[ "$1" = mpirun ] || "$@" >> "${log}" 2>&1
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Return a recipe's folder after stage 1."""
    for name, count in (("tr_no_dev", 8), ("dev", 4)):
        tiny_corpus.make_corpus(tmp_path / "dump/fbank" / name, n_utts=count)
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "bin").mkdir()
    for name, text in (("srun", SRUN), ("slurm.pl", QUEUE), ("queue.pl", QUEUE), ("ssh.pl", QUEUE)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def train(recipe: Path, backend: str, *options: str) -> subprocess.CompletedProcess:
    """Run stage 2 with a queue."""
    folders = [str(recipe / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    env = {**os.environ, "PATH": os.pathsep.join(folders), "cmd_backend": backend, "OMP_NUM_THREADS": "1"}
    env.pop("KALDI_ROOT", None)
    command = [str(ROOT / "run.sh"), "--recipe_dir", str(recipe), "--train_config", "train.yaml", *options]
    command += ["--stage", "2", "--stop_stage", "2", "--ngpu", "0"]
    for key, value in FEATS.items():
        command += [f"--{key}", str(value)]
    return subprocess.run(command, env=env, capture_output=True, text=True)


def test_two_nodes_by_slurm_equal_one(recipe: Path) -> None:
    for tag, backend, nodes in (("one", "local", "1"), ("two", "slurm", "2")):
        done = train(recipe, backend, "--num_nodes", nodes, "--tag", tag)
        assert done.returncode == 0, done.stderr[-3000:]
    log = (recipe / "exp/voc_two/train.log").read_text()
    for words in (
        "# --name voc_two --gpu 0 --num_threads 1 --num_nodes 2 ",
        "srun --export=ALL python3 -m flowavenet_plugin.bin.vocoder_train",
        "--dist_launcher slurm --dist_init_method file://",
        "--dist_backend gloo",
        "to kill on bad exit: 1",
    ):
        assert words in log, words
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
        "--num_nodes 3",
        "mpirun -np 3 python3 -m flowavenet_plugin.bin.vocoder_train",
        "--dist_launcher mpi",
    ):
        assert words in said, words


@pytest.mark.parametrize("backend, words", [("local", "needs a queue"), ("ssh", "torchrun")])
def test_backends_that_cannot(recipe: Path, backend: str, words: str) -> None:
    done = train(recipe, backend, "--num_nodes", "2")
    assert done.returncode != 0 and words in done.stderr, done.stderr
