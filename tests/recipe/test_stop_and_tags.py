"""run.sh ends what it started, keeps trainings apart, and names folders so that two settings never share one."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
import yaml

import tiny_corpus

ROOT = Path(__file__).resolve().parents[2]
FEATS = {key: value for key, value in tiny_corpus.FEATS_CONF.items() if key != "hop_length"}
CONFIG = dict(
    vocoder_conf=tiny_corpus.VOCODER_CONF,
    segment_length=512,
    batch_size=2,
    num_workers=1,
    optim="adam",
    optim_conf=dict(lr=0.001),
    max_epoch=2,
    log_interval=1,
    use_matplotlib=False,
    sample_interval=0,
    best_model_criterion=[["valid", "loss", "min"]],
)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """Return a recipe's folder after stage 1."""
    for name in ("tr_no_dev", "dev"):
        tiny_corpus.make_corpus(tmp_path / "dump/fbank" / name, n_utts=4)
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


def hear_signals() -> None:
    """Let a child hear what the tests may ignore themselves: Ctrl-C in a shell's background, SIGHUP under nohup."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def start(recipe: Path, *options: str, **env: str) -> subprocess.Popen:
    """Start stage 2."""
    folders = [str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = {**os.environ, "PATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1", **env}
    environment.pop("KALDI_ROOT", None)
    command = [str(ROOT / "run.sh"), "--recipe_dir", str(recipe), "--train_config", "train.yaml", "--ngpu", "0"]
    command += ["--stage", "2", "--stop_stage", "2", "--n_shift", str(tiny_corpus.HOP)]
    for key, value in FEATS.items():
        command += [f"--{key}", str(value)]
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return subprocess.Popen([*command, *options], env=environment, preexec_fn=hear_signals, **pipes)


def train(recipe: Path, *options: str) -> str:
    """Run stage 2, which must succeed; return what it printed."""
    process = start(recipe, *options)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def processes(folder: Path, word: bytes = b"") -> list[int]:
    """Return the processes that work in a folder, with a word in their command lines."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (place / "cwd").resolve() == folder and word in (place / "cmdline").read_bytes():
                found.append(int(place.name))
        except OSError:  # it has ended
            continue
    return found


def wait_for(path: Path, process: subprocess.Popen) -> None:
    """Wait for a file while the process runs."""
    while not path.exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_to_run_sh_alone_ends_all_and_it_goes_on(recipe: Path, number: int) -> None:
    process = start(recipe, "--train_args", "--max_epoch 10000")
    exp = recipe / "exp/voc_train"
    wait_for(exp / "1epoch.pth", process)
    assert processes(recipe, b"flowavenet_plugin.bin.vocoder_train")
    process.send_signal(number)
    output, _ = process.communicate()
    assert process.returncode == 128 + number, output
    assert signal.Signals(number).name in output
    assert not processes(recipe)
    assert "Training was stopped by SIGTERM" in (exp / "train.log").read_text()
    assert not (exp / ".lock").exists()
    epochs = torch.load(exp / "checkpoint.pth", weights_only=False)["reporter"]["epoch"]
    stopped = (exp / "stopped.pth").exists()
    done = torch.load(exp / "stopped.pth", weights_only=False)["train"]["count"] if stopped else 2
    train(recipe, "--train_args", f"--max_epoch {epochs + 1}")
    log = (exp / "train.log").read_text()
    assert f"{epochs + 1}/{epochs + 1}epoch started" in log and not (exp / "stopped.pth").exists()
    assert done == 2 or "iteration 2/2" in log  # the epoch's second is done before or after the stop


def test_a_training_that_was_stopped_is_no_failure(recipe: Path) -> None:
    process = start(recipe, "--train_args", "--max_epoch 10000")
    exp = recipe / "exp/voc_train"
    wait_for(exp / "1epoch.pth", process)
    # As Slurm's scancel --signal=USR1 does, to the processes of the job's step.
    for pid in processes(recipe, b"-m\0flowavenet_plugin.bin.vocoder_train"):
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"espnet2.bin.launch" not in words and b"run.pl" not in words:
            os.kill(pid, signal.SIGUSR1)
    output, _ = process.communicate()
    assert process.returncode == 128 + signal.SIGUSR1, output
    assert "Training was stopped by SIGUSR1, and has saved: the same command goes on" in output
    assert "error" not in output


def test_a_job_script_requeues_itself(recipe: Path) -> None:
    """The script of docs/training.md, with stand-ins for sbatch and scontrol."""
    text = (ROOT / "docs/training.md").read_text()
    text = "    #!/usr/bin/env bash\n" + text.split("    #!/usr/bin/env bash\n")[1].split("\n\n")[0]
    options = ["--recipe_dir", str(recipe), "--train_config", "train.yaml", "--n_shift", str(tiny_corpus.HOP)]
    options += [word for key, value in FEATS.items() for word in (f"--{key}", str(value))]
    options += ["--ngpu", "0", "--stop_stage", "2", "--train_args", "--max_epoch 10000"]
    script = textwrap.dedent(text).replace("--ngpu 4", shlex.join(options))
    script = script.replace("./run.sh", str(ROOT / "run.sh"))
    assert str(ROOT) in script and "scontrol" in script
    (recipe / "job.sh").write_text(script)
    (recipe / "bin").mkdir()
    (recipe / "bin/scontrol").write_text(f'#!/bin/sh\necho "$@" > {recipe}/requeued\n')
    (recipe / "bin/scontrol").chmod(0o755)
    folders = [str(recipe / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    env = {**os.environ, "PATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1", "SLURM_JOB_ID": "77"}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    process = subprocess.Popen(["bash", str(recipe / "job.sh")], env=env, cwd=ROOT, **pipes)
    wait_for(recipe / "exp/voc_train/1epoch.pth", process)
    process.send_signal(signal.SIGUSR1)
    output, _ = process.communicate()
    assert (recipe / "requeued").read_text() == "requeue 77\n", output
    assert not processes(recipe)


def test_a_second_run_leaves_the_first_alone(recipe: Path) -> None:
    first = start(recipe, "--train_args", "--max_epoch 10000")
    exp = recipe / "exp/voc_train"
    wait_for(exp / "1epoch.pth", first)
    script = (exp / "run.sh").read_text()
    second = start(recipe, "--train_args", "--max_epoch 9999")
    output, _ = second.communicate()
    assert second.returncode == 1 and f"another training writes to {Path('exp/voc_train')}: process " in output, output
    assert (exp / "run.sh").read_text() == script and not (exp / "train.1.log").exists()
    first.send_signal(signal.SIGTERM)
    first.communicate()
    assert first.returncode == 128 + signal.SIGTERM


def test_of_two_that_start_at_once_one_trains(recipe: Path) -> None:
    """Before training holds its own lock, whoever is refused must not move the other's logs away."""
    both = [start(recipe, "--train_args", f"--max_epoch {epochs}") for epochs in (2, 3)]
    outputs = [process.communicate()[0] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], outputs
    won = both[0].returncode == 1
    assert "another training writes to exp/voc_train: process " in outputs[not won], outputs[not won]
    exp = recipe / "exp/voc_train"
    assert f"{2 + won}/{2 + won}epoch started" in (exp / "train.log").read_text() and not (exp / "train.1.log").exists()
    assert f"--max_epoch\\ {2 + won}" in (exp / "run.sh").read_text()
    assert (exp / f"{2 + won}epoch.pth").exists()


def test_the_schedule_makes_no_new_experiment(recipe: Path) -> None:
    train(recipe)
    train(recipe, "--train_args", "--max_epoch 3 --optim_conf lr=5e-4 --lr_halvings 1/3 2/3 --num_workers 0")
    assert [path.name for path in (recipe / "exp").iterdir()] == ["voc_train"]
    assert (recipe / "exp/voc_train/3epoch.pth").exists()
    assert yaml.safe_load((recipe / "exp/voc_train/config.yaml").read_text())["optim_conf"] == {"lr": 0.0005}


def tags(*calls: str) -> list[str]:
    """Return what functions of stage_helpers.sh print, for lines of shell."""
    code = f". {shlex.quote(str(ROOT / 'local/stage_helpers.sh'))}\n" + "".join(f"{call}; echo\n" for call in calls)
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split("\n")[: len(calls)]


def test_two_settings_never_share_a_name() -> None:
    settings = ["", "--a 1/4 1/2", "--a 14/12", "--a 1/41/2", "--a 1 4", "--a 14", "--b a=1", "--b a1", "--a b_c"]
    settings += [
        "--a_b c",
        "--a b --c d",
        "--a b_cd",
        "--x true",
        "--xtrue",
        "--a 1 --b 2",
        "--a 1 --b 2.0",
        "--a -1",
        "--a 1-",
    ]
    found = tags(*(f"options_tag {shlex.quote(setting)}" for setting in settings))
    assert len(set(found)) == len(settings), sorted(found)
    assert found[0] == "" and tags("options_tag '--batch_size  4 --use_amp true'") == ["_batch_size4_use_amptrue"]
    assert all("/" not in tag and " " not in tag for tag in found)
    places = tags("place_tag /a/tf", "place_tag /b/tf", "place_tag /b/../a/tf/", "place_tag /a/tf stats.npz")
    assert places[0] == places[2] and len(set(places)) == 3 and all(tag.startswith("tf-") for tag in places)
    given = "--max_epoch=9 --batch_size 4 --lr_halvings 1/4 1/2 --optim_conf lr=1e-3 --optim_conf eps=1"
    assert tags(f"without_schedule '{given}'") == ["--batch_size 4 --optim_conf eps=1"]
    broken = given.replace(" ", "\n")  # as a variable of several lines gives it
    assert tags(f"without_schedule '{broken}'") == ["--batch_size 4 --optim_conf eps=1"]
    assert tags("options_tag '--a 1\n  --b 2'") == tags("options_tag '--a 1 --b 2'") == ["_a1_b2"]


def test_features_and_weights_that_are_named_count(recipe: Path) -> None:
    """Stage 1 is done: features generated by A and B, and the same weights below two names."""
    for name, n_utts in (("A", 4), ("B", 5)):
        folder = recipe / "dump" / f"fbank_gta_{tags(f'place_tag {recipe / name}')[0]}"
        for dataset in ("tr_no_dev", "dev"):
            tiny_corpus.make_corpus(folder / dataset, n_utts=n_utts)
    train(recipe, "--gta_dir", str(recipe / "A"))
    train(recipe, "--gta_dir", str(recipe / "B"))
    found = sorted(path.name.rsplit("-", 1)[0] for path in (recipe / "exp").iterdir())
    assert found == ["voc_train_gta_A", "voc_train_gta_B"]
    weights = next((recipe / "exp").glob("voc_train_gta_A*")) / "1epoch.pth"
    other = weights.with_name("2epoch.pth")
    train(recipe, "--tag", "tuned", "--resume", str(weights))
    before = (recipe / "exp/voc_tuned/config.yaml").read_bytes()
    for options, words in ((["--resume", str(other)], str(other)), (["--gta_dir", str(recipe / "B")], "feats_stats")):
        process = start(recipe, "--tag", "tuned", *options, "--train_args", "--max_epoch 3")
        output, _ = process.communicate()
        assert process.returncode == 1 and words in output and "--tag" in output, output
        assert (recipe / "exp/voc_tuned/config.yaml").read_bytes() == before
    train(recipe, "--tag", "tuned", "--train_args", "--max_epoch 3")
    assert (recipe / "exp/voc_tuned/3epoch.pth").exists()
