"""Training in two processes on the CPU, by torchrun and as it starts them: as in one, and no hang when one dies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tiny_corpus
from flowavenet_plugin.bin.vocoder_train import main

RANKS = 2
#: Seconds after which a process counts as hanging; it takes one or two.
PATIENCE = 120
#: Whole utterances, of different lengths, so that both sides see the same data; float64, so that they can be compared.
SAME = dict(
    segment_length=4096,
    batch_size=4,
    train_dtype="float64",
    num_iters_per_epoch=1,
    keep_nbest_models=9,
    num_workers=0,
    optim="sgd",
    grad_clip=1e9,
    use_matplotlib="false",
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with training and validation sets."""
    root = tmp_path_factory.mktemp("corpus")
    tiny_corpus.make_corpus(root / "train", n_utts=8)
    tiny_corpus.make_corpus(root / "valid", n_utts=4)
    return root


def command(corpus: Path, output_dir: Path, reversible: bool = True, **options: object) -> list[str]:
    """Return the training command's arguments."""
    arguments = tiny_corpus.train_options(corpus / "train", corpus / "valid", output_dir, **{**SAME, **options})
    extra = ["--optim_conf", "momentum=0.9"]
    return [*arguments, *extra, "--vocoder_conf", f"reversible={str(reversible).lower()}"]


def free_port() -> int:
    """Return a port that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def start(arguments: list[str], log_dir: Path, others: list[str] | None = None) -> list[subprocess.Popen]:
    """Start the processes with the environment that torchrun makes; all but the first may have other arguments."""
    log_dir.mkdir(exist_ok=True)
    port = free_port()
    program = [sys.executable, "-m", "flowavenet_plugin.bin.vocoder_train", "--dist_backend", "gloo"]
    processes = []
    for rank in range(RANKS):
        script = [*program, *(arguments if rank == 0 or others is None else others)]
        place = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=RANKS, MASTER_ADDR="localhost", MASTER_PORT=port)
        env = {**os.environ, "OMP_NUM_THREADS": "1", **{key: str(value) for key, value in place.items()}}
        with open(log_dir / f"{rank}.log", "w") as log:
            processes.append(subprocess.Popen(script, env=env, stderr=log, stdout=log))
    return processes


def run(arguments: list[str], log_dir: Path) -> None:
    """Train in all processes, which must succeed."""
    statuses = [process.wait(PATIENCE) for process in start(arguments, log_dir)]
    failed = next((rank for rank, status in enumerate(statuses) if status), 0)
    assert statuses == [0] * RANKS, (log_dir / f"{failed}.log").read_text()[-3000:]


def run_by_torchrun(arguments: list[str], log_dir: Path) -> None:
    """As :func:`run`, by the command that users type; its log has the lines of all processes."""
    log_dir.mkdir(exist_ok=True)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(RANKS)]
    place = ["--master_addr", "localhost", "--master_port", str(free_port())]
    module = ["-m", "flowavenet_plugin.bin.vocoder_train", *arguments, "--dist_backend", "gloo"]
    with open(log_dir / "0.log", "w") as log:
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run([*launcher, *place, *module], env=env, stdout=log, stderr=log, timeout=PATIENCE)
    assert done.returncode == 0, (log_dir / "0.log").read_text()[-3000:]


def weights(path: Path) -> dict[str, torch.Tensor]:
    """Read saved weights."""
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("reversible, run_both", [(False, run), (True, run_by_torchrun)])
def test_two_processes_equal_one(
    corpus: Path, tmp_path: Path, reversible: bool, run_both: Callable[[list[str], Path], None]
) -> None:
    options = dict(reversible=reversible, max_epoch=4, optim_conf="lr=0.001", ema_decay=0.5)
    main(command(corpus, tmp_path / "one", **options))
    run_both(command(corpus, tmp_path / "two", **options), tmp_path / "logs")
    # The first update holds ActNorm's start and the gradient, the fourth shows that nothing drifts apart.
    for name in ("1epoch.pth", "4epoch.pth", "ema.pth"):
        one, two = (weights(tmp_path / side / name) for side in ("one", "two"))
        for key, value in one.items():
            torch.testing.assert_close(
                two[key], value, rtol=1e-9, atol=1e-11, msg=lambda text, at=(name, key): f"{at}: {text}"
            )
    one, two = (torch.load(tmp_path / side / "checkpoint.pth", weights_only=False) for side in ("one", "two"))
    for a, b in zip(one["optimizers"][0]["state"].values(), two["optimizers"][0]["state"].values(), strict=True):
        torch.testing.assert_close(b["momentum_buffer"], a["momentum_buffer"], rtol=1e-8, atol=1e-11)  # gradients
    # Reported figures are means over samples, not over processes.
    for phase in ("train", "valid"):
        a, b = (states["reporter"]["stats"][4][phase]["loss"] for states in (one, two))
        assert b == pytest.approx(a, rel=1e-9)
    log = (tmp_path / "logs" / "0.log").read_text()
    assert "find_unused_parameters" not in log and "nats/sample" in log


def test_a_dead_process_ends_the_run_and_it_goes_on(corpus: Path, tmp_path: Path) -> None:
    exp = tmp_path / "exp"
    processes = start(command(corpus, exp, max_epoch=10000, optim_conf="lr=0.0"), tmp_path / "logs")
    deadline = time.monotonic() + PATIENCE
    while not (exp / "2epoch.pth").exists():
        assert time.monotonic() < deadline and processes[0].poll() is None, (tmp_path / "logs/0.log").read_text()[
            -3000:
        ]
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGKILL)
    try:
        assert processes[0].wait(PATIENCE) != 0
    finally:
        processes[0].kill()
    epoch = torch.load(exp / "checkpoint.pth", weights_only=False)["reporter"]["epoch"]
    before = weights(exp / f"{epoch}epoch.pth")
    run(command(corpus, exp, max_epoch=epoch + 1, optim_conf="lr=0.0"), tmp_path / "logs")
    assert f"resumed using {exp}/checkpoint.pth" in (tmp_path / "logs" / "0.log").read_text()
    # The learning rate is zero: had ActNorm started again, the weights would differ.
    after = weights(exp / f"{epoch + 1}epoch.pth")
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    # So from given weights.
    options = dict(max_epoch=1, optim_conf="lr=0.0", init_param=exp / f"{epoch}epoch.pth")
    run(command(corpus, tmp_path / "tuned", **options), tmp_path / "logs")
    after = weights(tmp_path / "tuned" / "1epoch.pth")
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_another_set_on_another_machine_is_refused_by_all(corpus: Path, tmp_path: Path) -> None:
    """As where each machine has a copy of the corpus of its own, and one of them is old."""
    tiny_corpus.make_corpus(tmp_path / "train", n_utts=8, seconds=0.31)
    arguments, others = (command(root, tmp_path / "exp", max_epoch=1) for root in (corpus, tmp_path))
    others[others.index(f"{tmp_path}/valid/wav.scp,speech,sound")] = f"{corpus}/valid/wav.scp,speech,sound"
    others[others.index(f"{tmp_path}/valid/feats.scp,feats,kaldi_ark")] = f"{corpus}/valid/feats.scp,feats,kaldi_ark"
    others[others.index(f"{tmp_path}/valid/utt2num_samples")] = f"{corpus}/valid/utt2num_samples"
    statuses = [process.wait() for process in start(arguments, tmp_path / "logs", others)]
    for rank, status in enumerate(statuses):
        said = (tmp_path / f"logs/{rank}.log").read_text()
        assert status != 0 and "process 1 has another training set than process 0: lengths " in said, said[-2000:]
    assert not (tmp_path / "exp/config.yaml").exists()
