"""Training in several processes by run.sh, on a stand-in for GPUs: as in one, and all end when one is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

import tiny_corpus

ROOT = Path(__file__).resolve().parents[2]
#: Random segments with noise, a batch that can't be shared evenly, a prediction before the flow.
CONFIG = dict(
    vocoder_conf={**tiny_corpus.VOCODER_CONF, "prediction_order": 8, "mel_range": [0, 4000]},
    segment_length=512,
    dequantize=True,
    shuffle_within_batch=True,
    batch_size=6,
    valid_batch_size=5,
    train_dtype="float64",
    num_iters_per_epoch=10,
    max_epoch=2,
    num_workers=1,
    optim="adam",
    optim_conf=dict(lr=0.001),
    ema_decay=0.5,
    keep_nbest_models=9,
    log_interval=5,
    use_matplotlib=False,
    best_model_criterion=[["valid", "loss", "min"]],
)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a recipe's folder after stage 1."""
    root = tmp_path_factory.mktemp("recipe")
    for name, count in (("tr_no_dev", 13), ("dev", 11)):
        tiny_corpus.make_corpus(root / "dump/fbank" / name, n_utts=count)
    (root / "train.yaml").write_text(yaml.safe_dump(CONFIG))
    shutil.copy(ROOT / "tests/recipe/four_gpus.py", root)
    return root


def command(recipe: Path, tag: str, ngpu: int, train_args: str = "") -> list[str]:
    """Return the command of stage 2."""
    feats = {**tiny_corpus.FEATS_CONF, "n_shift": tiny_corpus.HOP}
    feats.pop("hop_length")
    options = dict(recipe_dir=recipe, train_config="train.yaml", stage=2, stop_stage=2, ngpu=ngpu, tag=tag, **feats)
    options["python"] = f"python3 {recipe}/four_gpus.py"
    options["train_args"] = train_args
    return [str(ROOT / "run.sh"), *(str(word) for key, value in options.items() for word in (f"--{key}", value))]


def environment() -> dict[str, str]:
    """Return the environment: this Python, the package of this checkout, one thread for each process."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    own = {"PATH": path, "PYTHONPATH": str(ROOT), "cmd_backend": "local", "OMP_NUM_THREADS": "1", "GPUS_HERE": "1"}
    return {**os.environ, **own}


def train(recipe: Path, tag: str, ngpu: int, train_args: str = "") -> Path:
    """Train, and return the folder of the experiment."""
    done = subprocess.run(command(recipe, tag, ngpu, train_args), env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return recipe / f"exp/voc_{tag}"


def figures(exp: Path) -> dict:
    """Read all figures of all epochs."""
    return torch.load(exp / "checkpoint.pth", weights_only=False)["reporter"]["stats"]


def same_learning(one: Path, other: Path) -> None:
    """Compare two trainings: weights, averages, figures."""
    for name in ("1epoch.pth", "2epoch.pth", "ema.pth"):
        a, b = (torch.load(exp / name, weights_only=True) for exp in (one, other))
        norms = [key for key in a if key.endswith("initialized")]
        assert norms and all(float(b[key]) == 1 for key in norms)
        for key, value in a.items():
            torch.testing.assert_close(b[key], value, rtol=1e-9, atol=1e-9, msg=lambda t, at=(name, key): f"{at}: {t}")
    a, b = figures(one), figures(other)
    for epoch in (1, 2):
        for phase, key in (("train", "loss"), ("valid", "loss"), ("valid", "log_p"), ("valid", "ema_loss")):
            assert b[epoch][phase][key] == pytest.approx(a[epoch][phase][key], abs=1e-9), (epoch, phase, key)
        assert b[epoch]["train"]["total_count"] == 10 * epoch


@pytest.mark.parametrize("accum_grad, ranks", [(1, [2, 4]), (2, [4])])
def test_several_processes_learn_what_one_does(recipe: Path, accum_grad: int, ranks: list[int]) -> None:
    train_args = f"--accum_grad {accum_grad}"
    one = train(recipe, f"one_{accum_grad}", 1, train_args + " --num_workers 0")
    for count in ranks:
        several = train(recipe, f"{count}_{accum_grad}", count, train_args)
        assert f":0/{count}]" in (several / "train.log").read_text()  # there were so many
        same_learning(one, several)


def processes_below(parent: int) -> dict[int, list[int]]:
    """Return the processes started by a process and by those, each with its children."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
    found = {parent: []}
    for _ in parents:
        new = {pid: [] for pid, its in parents.items() if its in found and pid not in found}
        found |= new
        if not new:
            break
    for pid in found:
        found[pid] = sorted(child for child in found if parents.get(child) == pid)
    return found


def words_of(pid: int) -> str:
    """Return a process's command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def test_a_killed_process_ends_all_and_is_named(recipe: Path) -> None:
    exp = recipe / "exp/voc_killed"
    options = "--max_epoch 100000 --num_iters_per_epoch 1 --keep_nbest_models 1"
    log = recipe / "killed.log"
    with open(log, "w") as file:
        run = subprocess.Popen(command(recipe, "killed", 4, options), env=environment(), stdout=file, stderr=file)
    while not (exp / "2epoch.pth").exists():
        assert run.poll() is None, log.read_text()[-3000:]
        time.sleep(0.1)
    family = processes_below(run.pid)
    ranks = [pid for pid in family if "spawn_main" in words_of(pid)]
    first = next(pid for pid in family if sum(child in ranks for child in family[pid]) == 4)
    ranks = [pid for pid in family[first] if pid in ranks]
    os.kill(ranks[2], signal.SIGKILL)
    assert run.wait() != 0
    said = log.read_text()
    assert f"process id {ranks[2]}) was ended by SIGKILL, and the others with it" in said, said[-3000:]
    while any(exp.name in words_of(pid) or "spawn_main" in words_of(pid) for pid in family):
        time.sleep(0.1)  # workers see within seconds that their process is gone


def test_a_set_smaller_than_the_processes_is_named_before_anything_is_written(recipe: Path) -> None:
    small = tiny_corpus.make_corpus(recipe / "dump/fbank/three", n_utts=3)
    call = [*command(recipe, "small", 4), "--valid_set", small.name]
    done = subprocess.run(call, env=environment(), capture_output=True, text=True)
    assert done.returncode != 0
    assert "the validation set has 3 utterance(s)" in done.stderr and "fewer than the 4 processes" in done.stderr
    assert not (recipe / "exp/voc_small/config.yaml").exists()
