"""The recipe on a cluster: from data to report by Slurm, with four stand-ins for GPUs, in a copy of the repository."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import stub_cluster

ROOT = Path(__file__).resolve().parents[2]
MADE = ("data", "dump", "exp", "downloads", ".venv", ".git", "__pycache__")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of the repository, with what the recipes make left out, beside a cluster's programs."""
    stub_cluster.make_cluster(tmp_path / "bin")

    def made(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if name in MADE and (Path(folder) / name / "__init__.py").exists() is False]

    shutil.copytree(ROOT, tmp_path / "copy", ignore=made, symlinks=True)
    return tmp_path / "copy"


def mini(copy: Path, backend: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the mini recipe; four utterances to validate on, one for each process."""
    shutil.copy(ROOT / "tests/recipe/four_gpus.py", copy.parent / "four_gpus.py")
    command = [
        str(copy / "egs/mini/voc1/run.sh"),
        "--python",
        f"python3 {copy.parent}/four_gpus.py",
        "--trained_model",
        "",
    ]
    command += [
        "--train_config",
        f"{copy}/tests/recipe/train_ten_steps.yaml",
        "--temperatures",
        "",
        "--num_threads",
        "1",
    ]
    command += ["--local_data_opts", "--num_dev 4 --num_eval 1", "--inference_nj", "1", *options]
    env = stub_cluster.environment(copy.parent / "bin", backend)
    return subprocess.run(command, env=env, capture_output=True, text=True)


@pytest.mark.slow
def test_from_data_to_report_on_four_gpus(copy: Path) -> None:
    done = mini(copy, "slurm", "--stage", "0", "--ngpu", "4", "--nj", "2")
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    experiment = copy / "egs/mini/voc1/exp/voc_train_ten_steps"
    for name in ("report.html", "RESULTS.md", "valid.loss.best.pth", "voc_train_ten_steps_valid.loss.best.zip"):
        assert (experiment / name).is_file(), name
    log = (experiment / "train.log").read_text()
    assert ":0/4] " in log, log[:3000]  # the first of four processes
    asked = (copy.parent / "bin/asked").read_text().splitlines()
    training = next(line for line in asked if "--job-name=voc_train_ten_steps" in line)
    assert "--gres=gpu:4" in training and "--cpus-per-task=4" in training, training
    features = [line for line in asked if "extract_feats" in line]
    assert len(features) == 3 and all("--cpus-per-task=1" in line and "gpu" not in line for line in features), features
    decoding = [line for line in asked if "vocoder_inference" in line or "evaluate" in line]
    assert len(decoding) == 4 and all("--gres=gpu:1" in line for line in decoding), decoding
    ran = (copy.parent / "ran").read_text()
    assert f"{copy}/local/prepare_ljspeech.py" in ran, ran  # --python is the one of all stages
    assert f"cd {copy}/egs/mini/voc1\n. ./path.sh\n" in (experiment / "q/train.sh").read_text()
    said = "".join(path.read_text() for path in experiment.parents[1].rglob("q/*.log"))
    assert "path.sh" not in said, said  # each job's environment was made


@pytest.mark.parametrize("backend", ["sge", "pbs"])
def test_data_and_features_by_other_queues(copy: Path, backend: str) -> None:
    """A job with bad recordings only does no harm where they may be left out."""
    options = ["--stage", "0", "--stop_stage", "0", "--ngpu", "0"]
    assert mini(copy, backend, *options).returncode == 0
    recipe = copy / "egs/mini/voc1"
    for name in ("tr_no_dev", "dev", "eval1"):
        shutil.copytree(recipe / "data/eval1", recipe / f"data/one_{name}", dirs_exist_ok=True)
    dev = [line for line in (recipe / "data/dev/wav.scp").read_text().splitlines()][:2]
    (recipe / "data/one_dev/wav.scp").write_text(f"{dev[0]}.none\n{dev[1]}\n")
    sets = ["--train_set", "one_tr_no_dev", "--valid_set", "one_dev", "--test_sets", "one_eval1"]
    options = ["--stage", "1", "--stop_stage", "1", "--ngpu", "0", "--nj", "2", *sets]
    done = mini(copy, backend, *options)
    assert done.returncode == 1 and "the end of dump/fbank/one_dev/log/extract_feats.1.log" in done.stderr, done.stderr
    assert "extract_feats.2.log" not in done.stderr  # which went well
    done = mini(copy, backend, *options, "--skip_bad_utts", "true")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (recipe / "dump/fbank/one_dev/feats.scp").read_text().split()[0] == dev[1].split()[0]
    assert (recipe / "dump/fbank/one_dev/bad_utts").read_text().split()[0] == dev[0].split()[0]


def test_a_python_that_is_named_is_not_replaced(copy: Path) -> None:
    """The quick start makes an environment where there is none, but not in the place of --python."""
    made = copy.parent / "made"
    (copy / "local/setup_env.sh").write_text(f'#!/bin/sh\n[ "$1" = --check ] || touch "{made}"\nexit 1\n')
    (copy.parent / "bin/python3").write_text("#!/bin/sh\nexit 1\n")
    (copy.parent / "bin/python3").chmod(0o755)
    env = stub_cluster.environment(copy.parent / "bin", "local")
    command = [str(copy / "egs/mini/voc1/run.sh")]
    for words in (["--python", "/none/python"], ["--python=/none/python"]):
        done = subprocess.run([*command, *words], env=env, capture_output=True, text=True)
        assert done.returncode == 1 and "missing: a working '/none/python'" in done.stderr, done.stderr
        assert not made.exists()
    subprocess.run(command, env=env, capture_output=True)
    assert made.exists()
