"""Asked to stop, a training finishes its iteration, saves and ends; started again, it goes on as if never stopped."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from espnet2.tasks.abs_task import AbsTask
from torch.multiprocessing.spawn import ProcessContext

import tiny_corpus
from flowavenet_plugin.bin.vocoder_train import main
from flowavenet_plugin.tasks.espnet_model import ESPnetVocoderModel
from flowavenet_plugin.tasks.folder_lock import FolderLock
from flowavenet_plugin.tasks.stopping import REQUEST

#: All that has a state: noise from the random generators, an average, a rate that changes, updates of two iterations.
RUN = dict(
    max_epoch=3,
    batch_size=1,
    ema_decay=0.9,
    lr_halvings="1/3",
    keep_nbest_models=9,
    dequantize="true",
    accum_grad=2,
    sample_interval=0,
    use_matplotlib="false",
)
#: Calls of the model in an epoch: six iterations, two utterances to validate, twice for the average.
CALLS = 6 + 4


def command(corpus: Path, output_dir: Path, **changes: object) -> list[str]:
    """Return the arguments of the run that is to be stopped."""
    return tiny_corpus.train_options(corpus / "train", corpus / "valid", output_dir, **{**RUN, **changes})


@pytest.fixture(scope="module", params=[0, 1])
def whole(request: pytest.FixtureRequest, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    """Return a number of loading processes and the experiment of a run that nothing disturbed."""
    exp = tmp_path_factory.mktemp("whole")
    main(command(corpus, exp, num_workers=request.param))
    return request.param, exp


@pytest.fixture
def signal_in_call(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Return a function: in the n-th call of the model from now on, this process gets a signal."""
    plain = ESPnetVocoderModel.forward

    def arrange(call: int, number: int) -> None:
        calls = []

        def forward(self: ESPnetVocoderModel, *args: object, **kwargs: object) -> object:
            calls.append(None)
            if len(calls) == call:
                signal.raise_signal(number)
            return plain(self, *args, **kwargs)

        monkeypatch.setattr(ESPnetVocoderModel, "forward", forward)

    return arrange


def figures(states: dict) -> dict:
    """Return what a checkpoint reports of each epoch, without times and memory."""
    return {
        (epoch, phase, key): value
        for epoch, phases in states["reporter"]["stats"].items()
        for phase, values in phases.items()
        for key, value in values.items()
        if "time" not in key and "mem" not in key
    }


def assert_equal_experiments(one: Path, other: Path) -> None:
    """Compare weights, averages, the optimiser's state and all figures, bit by bit."""
    names = sorted(path.name for path in one.glob("*.pth"))
    assert sorted(path.name for path in other.glob("*.pth")) == names and "ema.pth" in names
    for name in set(names) - {"checkpoint.pth"}:
        a, b = (torch.load(folder / name, weights_only=True) for folder in (one, other))
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a), name
    a, b = (torch.load(folder / "checkpoint.pth", weights_only=False) for folder in (one, other))
    for x, y in zip(a["optimizers"][0]["state"].values(), b["optimizers"][0]["state"].values(), strict=True):
        assert x.keys() == y.keys() and all(torch.equal(x[key], y[key]) for key in x)
    assert a["optimizers"][0]["param_groups"] == b["optimizers"][0]["param_groups"]
    assert figures(a) == figures(b)


@pytest.mark.parametrize(
    "call, number, done",
    [
        (3, signal.SIGTERM, 4),  # in the first epoch: there is no checkpoint yet; the update's second iteration follows
        (CALLS + 2, signal.SIGUSR1, 2),
        (2 * CALLS + 6, signal.SIGTERM, 6),  # the last iteration of an epoch
        (CALLS + 8, signal.SIGTERM, 6),  # in validation
        (CALLS + 9, signal.SIGUSR1, 6),  # in that of the average, whose weights are in the model then
    ],
)
def test_bit_by_bit_the_same(
    corpus: Path,
    whole: tuple[int, Path],
    tmp_path: Path,
    signal_in_call: Callable[[int, int], None],
    call: int,
    number: int,
    done: int,
) -> None:
    num_workers, exp = whole
    before = signal.getsignal(number)
    signal_in_call(call, number)
    with pytest.raises(SystemExit) as stop:
        main(command(corpus, tmp_path, num_workers=num_workers))
    assert stop.value.code == 128 + number and signal.getsignal(number) is before
    assert torch.load(tmp_path / "stopped.pth", weights_only=False)["counts"]["done"] == done
    assert len(list(tmp_path.glob("[0-9]epoch.pth"))) == (call - 1) // CALLS
    main(command(corpus, tmp_path, num_workers=num_workers))
    assert_equal_experiments(exp, tmp_path)


def test_stopped_again_and_again(
    corpus: Path, whole: tuple[int, Path], tmp_path: Path, signal_in_call: Callable[[int, int], None]
) -> None:
    num_workers, exp = whole
    stops = 0
    while True:
        signal_in_call(5, signal.SIGTERM)  # the validation before may be done in one go
        try:
            main(command(corpus, tmp_path, num_workers=num_workers))
        except SystemExit:
            stops += 1
            assert stops < 99
        else:
            break
    assert stops >= 4
    assert_equal_experiments(exp, tmp_path)


def start(corpus: Path, exp: Path, **changes: object) -> subprocess.Popen:
    """Start a training in a process group of its own."""
    script = [sys.executable, "-m", "flowavenet_plugin.bin.vocoder_train", *command(corpus, exp, **changes)]
    return subprocess.Popen(script, stderr=subprocess.PIPE, text=True, start_new_session=True)


#: Trains, and runs a line in the n-th call of the model: a test that reads the log may be too late on a busy machine.
TRAIN_AND_SIGNAL = """
import os, signal, sys
from flowavenet_plugin.bin.vocoder_train import main
from flowavenet_plugin.tasks.espnet_model import ESPnetVocoderModel
call, line, *options = sys.argv[1:]
plain, calls = ESPnetVocoderModel.forward, []
def forward(self, *args, **kwargs):
    calls.append(None)
    if len(calls) == int(call):
        exec(line)
    return plain(self, *args, **kwargs)
ESPnetVocoderModel.forward = forward
main(options)
"""


def test_all_processes_of_a_job_get_the_signal(corpus: Path, whole: tuple[int, Path], tmp_path: Path) -> None:
    num_workers, exp = whole
    line = "os.killpg(os.getpgrp(), signal.SIGTERM)"  # the loading process, too
    script = [sys.executable, "-c", TRAIN_AND_SIGNAL, str(CALLS + 4), line]
    script += command(corpus, tmp_path, num_workers=num_workers)
    done = subprocess.run(script, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr[-3000:]
    assert "Training was stopped by SIGTERM" in done.stderr
    assert torch.load(tmp_path / "stopped.pth", weights_only=False)["epoch"] == 2
    main(command(corpus, tmp_path, num_workers=num_workers))
    assert_equal_experiments(exp, tmp_path)


def test_two_processes_stop_together(corpus: Path, tmp_path: Path) -> None:
    def run(exp: Path, stop: bool) -> list[int]:
        with socket.socket() as probe:
            probe.bind(("localhost", 0))
            port = probe.getsockname()[1]
        processes = []
        for rank in range(2):
            place = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=2, MASTER_ADDR="localhost", MASTER_PORT=port)
            env = {**os.environ, "OMP_NUM_THREADS": "1", **{key: str(value) for key, value in place.items()}}
            line = "signal.raise_signal(signal.SIGUSR1)" if stop and rank == 1 else "pass"  # to one of them
            script = [sys.executable, "-c", TRAIN_AND_SIGNAL, "7", line, "--dist_backend", "gloo"]
            script += command(corpus, exp, num_workers=0, batch_size=2, accum_grad=1)
            processes.append(subprocess.Popen(script, env=env))
        return [process.wait() for process in processes]

    assert run(tmp_path / "whole", stop=False) == [0, 0]
    assert run(tmp_path / "stopped", stop=True) == [128 + signal.SIGUSR1] * 2
    stopped = torch.load(tmp_path / "stopped/stopped.pth", weights_only=False)
    assert stopped["epoch"] == 2 and len(stopped["random"]) == 2
    assert run(tmp_path / "stopped", stop=False) == [0, 0]
    assert_equal_experiments(tmp_path / "whole", tmp_path / "stopped")


def test_in_the_middle_of_an_epoch_batches_cannot_change_but_the_rate_can(
    corpus: Path, tmp_path: Path, signal_in_call: Callable[[int, int], None]
) -> None:
    signal_in_call(CALLS + 2, signal.SIGTERM)
    with pytest.raises(SystemExit):
        main(command(corpus, tmp_path / "exp", num_workers=0))
    before = {path: path.read_bytes() for path in (tmp_path / "exp").rglob("*") if path.is_file()}
    shutil.copytree(tmp_path / "exp", tmp_path / "anew", symlinks=True)
    with pytest.raises(ValueError) as error:
        main(command(corpus, tmp_path / "exp", num_workers=0, batch_size=2))
    for words in ("batch_size 2", "it was 1", "epoch 2", "exp/stopped.pth away"):
        assert words in str(error.value)
    assert {path: path.read_bytes() for path in (tmp_path / "exp").rglob("*") if path.is_file()} == before
    main(command(corpus, tmp_path / "exp", num_workers=0, max_epoch=2, lr_halvings="1/2", optim_conf="lr=5e-4"))
    states = torch.load(tmp_path / "exp/checkpoint.pth", weights_only=False)
    # Two iterations, one update, at 0.001; two at half of 0.0005; figures stand at every second iteration.
    assert states["reporter"]["stats"][2]["train"]["optim0_lr0"] == pytest.approx((0.001 + 2 * 0.00025) / 3)
    assert not (tmp_path / "exp/stopped.pth").exists()
    (tmp_path / "anew/stopped.pth").unlink()
    main(command(corpus, tmp_path / "anew", num_workers=0, max_epoch=2, batch_size=2))  # from the last whole epoch


def test_a_second_training_in_the_folder_is_refused(corpus: Path, tmp_path: Path) -> None:
    with start(corpus, tmp_path / "exp", num_workers=1, max_epoch=10000, batch_size=2) as process:
        for line in process.stderr:
            if "1/10000epoch started" in line:
                break
        with pytest.raises(ValueError) as error:
            main(command(corpus, tmp_path / "exp", num_workers=0))
        for words in (f"process {process.pid} on {socket.gethostname()}, started 20", str(tmp_path / "exp"), "--tag"):
            assert words in str(error.value)
        main(command(corpus, tmp_path / "other", num_workers=0, max_epoch=1))  # another folder is free
        process.send_signal(signal.SIGKILL)
        process.stderr.read()
    assert (tmp_path / "exp/.lock").exists()  # of no meaning any more
    (tmp_path / "exp/.4epoch.pth.tmp-elsewhere.1").write_text("left by a kill")
    epochs = len(list((tmp_path / "exp").glob("[0-9]*epoch.pth")))
    main(command(corpus, tmp_path / "exp", num_workers=0, max_epoch=epochs + 2, batch_size=2))
    assert not list((tmp_path / "exp").glob(".*"))


def test_the_loading_processes_do_not_hold_the_lock(tmp_path: Path) -> None:
    code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from flowavenet_plugin.tasks.folder_lock import FolderLock\n"
        "lock = FolderLock()\n"
        f"lock.take(Path({str(tmp_path)!r}))\n"
        "if os.fork() == 0:\n"
        "    time.sleep(600)\n"
        "print('ready', flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout.readline() == "ready\n"
    assert process.wait() == -signal.SIGKILL
    try:
        lock = FolderLock()
        lock.take(tmp_path)
        lock.release()
        assert not list(tmp_path.iterdir())
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_who_only_starts_others_hands_the_signal_on() -> None:
    """As ESPnet2 starts a process for each GPU, and waits."""
    process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
    process.start()
    with REQUEST.listen(hand_on=True):
        signal.raise_signal(signal.SIGUSR1)
        process.join()
    assert process.exitcode == -signal.SIGUSR1


def test_the_status_of_a_stopped_process_is_that_of_the_one_that_started_it(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(code: int) -> Callable[..., None]:
        def main_of_espnet(cls: type, args: object) -> None:
            process = multiprocessing.get_context("spawn").Process(target=sys.exit, args=(code,))
            process.start()
            while not ProcessContext([process], [str(tmp_path / "none")]).join():
                pass

        return main_of_espnet

    for code, kind in ((128 + signal.SIGTERM, SystemExit), (1, RuntimeError)):
        monkeypatch.setattr(AbsTask, "main", classmethod(ends(code)))
        with pytest.raises(kind) as error:
            main(command(corpus, tmp_path))
        if kind is SystemExit:
            assert error.value.code == code
        else:
            assert "ended by exit status 1" in str(error.value)
