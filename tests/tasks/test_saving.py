"""A run killed at any moment, also while it writes a checkpoint, goes on as if nothing had happened."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tiny_corpus
from flowavenet_plugin.bin.vocoder_train import main
from flowavenet_plugin.data.partial import partial_path
from flowavenet_plugin.tasks.saving import check_whole, epochs_of, whole_files_only
from flowavenet_plugin.tasks.stopped_epoch import read_stopped

#: An average of weights and a learning rate that changes are part of what must survive.
RUN = dict(num_workers=0, max_epoch=4, ema_decay=0.9, lr_halvings="2/4", keep_nbest_models=4)


class Killed(BaseException):
    """Stands for the end of the process: nothing that runs afterwards writes a file."""


def command(corpus: Path, output_dir: Path) -> list[str]:
    """Return the command line of the run that is to be killed."""
    return tiny_corpus.train_options(corpus / "train", corpus / "valid", output_dir, **RUN)


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the experiment of a run that nothing disturbed."""
    exp = tmp_path_factory.mktemp("whole")
    main(command(corpus, exp))
    return exp


def assert_equal_experiments(one: Path, other: Path) -> None:
    """Compare names of weights and, bit by bit, their values."""
    names = sorted(path.name for path in one.glob("*.pth"))
    assert sorted(path.name for path in other.glob("*.pth")) == names
    assert {
        "latest.pth",
        "ema.pth",
        "4epoch.pth",
        "valid.loss.best.pth",
        "2epoch.pth",
        "valid.loss.ave_4best.pth",
    } <= set(names)
    for name in set(names) - {"checkpoint.pth"}:  # it holds times as well
        a, b = (torch.load(folder / name, weights_only=True) for folder in (one, other))
        assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a), name
    a, b = (torch.load(folder / "checkpoint.pth", weights_only=False) for folder in (one, other))
    for x, y in zip(a["optimizers"][0]["state"].values(), b["optimizers"][0]["state"].values(), strict=True):
        assert x.keys() == y.keys() and all(torch.equal(x[key], y[key]) for key in x)


@pytest.mark.parametrize(
    "place, at", [("ema.pth", 2), ("checkpoint.pth", 2), ("2epoch.pth", 1), ("4epoch.pth", 1), ("latest.pth", 4)]
)
def test_killed_while_writing(
    corpus: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, at: int
) -> None:
    calls = []

    def kill_at(function: Callable[..., None], path_of: Callable[..., str]) -> Callable[..., None]:
        def until(*args: object, **kwargs: object) -> None:
            calls.append(path_of(*args))
            if calls.count(place) == at:
                raise Killed
            function(*args, **kwargs)

        return until

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "replace", kill_at(os.replace, lambda source, target: Path(target).name))
        patch.setattr(Path, "symlink_to", kill_at(Path.symlink_to, lambda link, target: link.name))
        main(command(corpus, tmp_path))
    assert not (tmp_path / place).exists() or at > 1
    assert partial_path(tmp_path / place).exists() or place == "latest.pth"
    main(command(corpus, tmp_path))
    assert_equal_experiments(whole, tmp_path)


def test_killed_in_the_middle_of_an_epoch(corpus: Path, whole: Path, tmp_path: Path) -> None:
    script = [sys.executable, "-m", "flowavenet_plugin.bin.vocoder_train", *command(corpus, tmp_path)]
    with subprocess.Popen(script, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "epoch 3/4, iteration 2/3" in line:
                process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert (tmp_path / "2epoch.pth").exists() and not (tmp_path / "3epoch.pth").exists()
    main(command(corpus, tmp_path))
    assert_equal_experiments(whole, tmp_path)


def test_killed_twice_at_random(corpus: Path, whole: Path, tmp_path: Path) -> None:
    seed = random.randrange(10**6)  # another one each time; the messages name it
    moments = random.Random(seed)
    script = [sys.executable, "-m", "flowavenet_plugin.bin.vocoder_train", *command(corpus, tmp_path)]
    statuses = []
    for most in (25, 10):  # of about 40 lines that the whole run writes to its log
        last, seen = moments.randint(1, most), 0
        with subprocess.Popen(script, stderr=subprocess.PIPE, text=True) as process:
            for line in process.stderr:
                seen += seen > 0 or "epoch started" in line
                if seen == last:
                    time.sleep(moments.uniform(0, 0.05))
                    process.send_signal(signal.SIGKILL)
        statuses.append(process.returncode)
    assert set(statuses) <= {-signal.SIGKILL, 0} and -signal.SIGKILL in statuses  # 0: it was faster than the signal
    main(command(corpus, tmp_path))
    try:
        assert_equal_experiments(whole, tmp_path)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}") from error


def test_a_full_disk_costs_one_epoch_at_most(corpus: Path, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "exp", symlinks=True)
    before = {path.name: path.read_bytes() for path in (tmp_path / "exp").glob("*.pth")}
    longer = [*command(corpus, tmp_path / "exp"), "--max_epoch", "5", "--use_matplotlib", "false"]
    size = len(before["checkpoint.pth"]) * 3 // 4  # no file may become larger, as if the disk were full
    code = f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size})); "
    code += "sys.argv = sys.argv[1:]; runpy.run_module('flowavenet_plugin.bin.vocoder_train', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code, "train", *longer], capture_output=True, text=True)
    assert done.returncode not in (0, -signal.SIGXFSZ)
    assert "checkpoint.pth could not be written" in done.stderr and "goes on after the last" in done.stderr
    after = {path.name: path.read_bytes() for path in (tmp_path / "exp").glob("*.pth")}
    assert after.keys() == before.keys() and after["checkpoint.pth"] == before["checkpoint.pth"]
    assert not list((tmp_path / "exp").glob(".*.tmp-*"))
    main(longer)
    assert (tmp_path / "exp" / "5epoch.pth").exists()


def test_a_truncated_checkpoint_says_how_to_go_on(corpus: Path, whole: Path, tmp_path: Path) -> None:
    content = (whole / "checkpoint.pth").read_bytes()
    (tmp_path / "checkpoint.pth").write_bytes(content[:-1000])
    (tmp_path / "3epoch.pth").write_bytes((whole / "4epoch.pth").read_bytes())
    with pytest.raises(ValueError) as error:
        main(command(corpus, tmp_path))
    for words in ("checkpoint.pth is broken", f"{len(content) - 1000} bytes", f"--init_param {tmp_path}/3epoch.pth"):
        assert words in str(error.value)
    check_whole(whole / "checkpoint.pth")


@pytest.mark.parametrize(
    "reporter", [None, {}, {"epoch": "1", "stats": {}}, {"epoch": 1}, {"epoch": 1, "stats": {1: {"valid": 2.0}}}]
)
def test_a_checkpoint_of_something_else(tmp_path: Path, reporter: object) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save({"model": {}, "reporter": reporter}, path)
    with pytest.raises(ValueError, match="checkpoint.pth is broken or no checkpoint"):
        epochs_of(path)
    torch.save([1], tmp_path / "stopped.pth")
    with pytest.raises(ValueError, match="stopped.pth is broken"):
        read_stopped(tmp_path, 0)


def test_an_end_that_contradicts_itself(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save({"model": {}}, path)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\6\7") + 16] = 9  # disks, where there is one
    path.write_bytes(content)
    with pytest.raises(ValueError, match="checkpoint.pth is broken"):
        check_whole(path)


def test_an_interrupted_save_leaves_the_old_file(tmp_path: Path) -> None:
    class Unsavable:
        def __reduce__(self) -> str:
            raise Killed

    path = tmp_path / "x.pth"
    plain = torch.save
    with whole_files_only(), pytest.raises(Killed):
        torch.save({"value": 1}, path)
        torch.save({"value": 2, "bad": Unsavable()}, path)
    assert torch.load(path) == {"value": 1}
    assert torch.save is plain
