"""What is kept of the best epochs: averages of their weights, moving averages by their own loss."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from espnet2.train.reporter import Reporter
from torch import Tensor

import tiny_corpus
from flowavenet_plugin import load_vocoder
from flowavenet_plugin.bin.vocoder_train import main
from flowavenet_plugin.tasks.best import BestAverages, average_nbest_models


@pytest.fixture
def train(corpus: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that trains and returns the folder of the experiment."""

    def run(*options: str, **changes: object) -> Path:
        changes = {"num_workers": 0, "keep_nbest_models": 9, "sample_interval": 0, **changes}
        main([*tiny_corpus.train_options(corpus / "train", corpus / "valid", tmp_path / "exp", **changes), *options])
        return tmp_path / "exp"

    return run


def weights(path: Path) -> dict[str, Tensor]:
    """Read saved weights."""
    return torch.load(path, weights_only=True)


def figures(exp: Path, key: str, phase: str = "valid") -> dict[int, float]:
    """Read a figure of all epochs."""
    stats = torch.load(exp / "checkpoint.pth", weights_only=False)["reporter"]["stats"]
    return {epoch: phases[phase][key] for epoch, phases in stats.items()}


def assert_mean(found: Path, parts: list[Path]) -> None:
    """Compare weights with the mean of others."""
    read = [weights(path) for path in parts]
    for key, value in weights(found).items():
        torch.testing.assert_close(value, torch.stack([part[key] for part in read]).mean(0), rtol=1e-5, atol=1e-7)


def test_each_average_is_of_its_own_epochs(train: Callable[..., Path]) -> None:
    # The learning rate is far too large: epochs are of very different weights, and the last isn't the best.
    criteria = ["--best_model_criterion", "valid,loss,min", "train,loss,min", "--keep_nbest_models", "2", "4", "1"]
    exp = train(*criteria, max_epoch=5, optim="sgd", optim_conf="lr=0.01")
    for phase in ("valid", "train"):
        losses = figures(exp, "loss", phase)
        best = [exp / f"{epoch}epoch.pth" for epoch in sorted(losses, key=losses.__getitem__)]
        for count in (2, 4):
            assert_mean(exp / f"{phase}.loss.ave_{count}best.pth", best[:count])
        assert (exp / f"{phase}.loss.ave_1best.pth").resolve() == best[0]
        assert (exp / f"{phase}.loss.ave.pth").resolve() == exp / f"{phase}.loss.ave_4best.pth"
    load_vocoder(exp / "valid.loss.ave_4best.pth")


def test_more_epochs_to_keep_than_before(train: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    train(max_epoch=3, keep_nbest_models=1)
    exp = train(max_epoch=4, keep_nbest_models=3)
    there = {int(path.name.removesuffix("epoch.pth")) for path in exp.glob("*epoch.pth")}
    assert len(there) < 4 and "so that 3 can't be averaged" in caplog.text  # what is gone is gone
    exp = train(max_epoch=6, keep_nbest_models=3)
    losses = figures(exp, "loss")
    best = [epoch for epoch in sorted(losses, key=losses.__getitem__) if (exp / f"{epoch}epoch.pth").exists()][:3]
    assert_mean(exp / "valid.loss.ave_3best.pth", [exp / f"{epoch}epoch.pth" for epoch in best])


def test_epochs_that_cannot_count(tmp_path: Path) -> None:
    reporter = Reporter()
    for epoch, loss in enumerate((3.0, float("nan"), 1.0, 2.0), 1):
        reporter.stats[epoch] = dict(valid=dict(loss=loss))
        torch.save(dict(a=torch.full((2,), float(epoch)), n=torch.tensor(epoch)), tmp_path / f"{epoch}epoch.pth")
    reporter.stats[5] = dict(valid={})
    criterion = [("valid", "loss", "min"), ("valid", "acc", "max")]
    average_nbest_models(tmp_path, reporter, criterion, [2, 3], suffix="till5epoch")
    assert weights(tmp_path / "valid.loss.ave_2best.till5epoch.pth")["a"].tolist() == [3.5, 3.5]
    three = weights(tmp_path / "valid.loss.ave.till5epoch.pth")
    torch.testing.assert_close(three["a"], torch.full((2,), 8 / 3))
    assert three["n"] == 3  # of the best: a sum of whole numbers says nothing
    assert not list(tmp_path.glob("valid.acc*"))
    with pytest.raises(ValueError, match="min or max, not 'least'"):
        average_nbest_models(tmp_path, reporter, [("valid", "loss", "least")], 2)


EMA = ["--best_model_criterion", "valid,loss,min", "valid,ema_loss,min"]


def test_the_best_by_ema_loss_are_averaged_weights(train: Callable[..., Path]) -> None:
    exp = train(*EMA, max_epoch=2, ema_decay=0.9, keep_nbest_models=2)
    exp = train(*EMA, max_epoch=5, ema_decay=0.9, keep_nbest_models=2)  # the losses before are known
    losses = figures(exp, "ema_loss")
    best = sorted(losses, key=losses.__getitem__)[:2]
    assert {path.name for path in exp.glob("*.ema.pth")} == {f"{epoch}epoch.ema.pth" for epoch in best}
    assert (exp / "valid.ema_loss.best.pth").resolve() == exp / f"{best[0]}epoch.ema.pth"
    assert_mean(exp / "valid.ema_loss.ave_2best.pth", [exp / f"{epoch}epoch.ema.pth" for epoch in best])
    last, plain = weights(exp / "ema.pth"), weights(exp / "5epoch.pth")
    kept = exp / "5epoch.ema.pth"
    assert not kept.exists() or all(torch.equal(value, last[key]) for key, value in weights(kept).items())
    assert 5 in best and not all(torch.equal(value, plain[key]) for key, value in last.items())
    load_vocoder(exp / "valid.ema_loss.best.pth")
    assert (exp / "valid.loss.best.pth").exists()


def test_averages_are_kept_by_their_loss(tmp_path: Path) -> None:
    kept = BestAverages(tmp_path, "min", 2, {1: 0.1})  # of epoch 1 there are no averages
    for epoch, loss in ((2, 5.0), (3, 3.0), (4, float("nan")), (5, 4.0), (6, 6.0)):
        kept.keep(epoch, loss, dict(a=torch.tensor(float(epoch))))
        there = sorted(path.name for path in tmp_path.glob("*.ema.pth"))
    assert there == ["3epoch.ema.pth", "5epoch.ema.pth"] and kept.ranked() == [3, 5]
    assert weights(tmp_path / "valid.ema_loss.best.pth")["a"] == 3
    kept.average()
    assert weights(tmp_path / "valid.ema_loss.ave.pth")["a"] == 4


@pytest.mark.parametrize(
    "options, words",
    [
        (EMA, ["ema_loss", "--ema_decay"]),
        (["--early_stopping_criterion", "valid", "ema_loss", "min"], ["early_stopping_criterion", "--ema_decay"]),
        (["--ema_decay", "0.9", "--best_model_criterion", "train,ema_loss,min"], ["train ema_loss", "validation"]),
        (["--keep_nbest_models", "0"], ["keep_nbest_models", "1 or more"]),
        (["--multiple_iterator", "true"], ["--multiple_iterator", "lists are read whole"]),
        (["--iterator_type", "chunk"], ["--iterator_type chunk", "--segment_length"]),
        (["--valid_iterator_type", "category"], ["--valid_iterator_type category"]),
    ],
)
def test_options_that_cannot_be_followed(
    train: Callable[..., Path], tmp_path: Path, options: list[str], words: list[str]
) -> None:
    with pytest.raises(ValueError) as error:
        train(*options)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert not (tmp_path / "exp").exists()


def test_what_only_one_process_can_do(
    train: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = ["--dist_world_size", "2", "--dist_rank", "0", "--dist_backend", "gloo"]
    for option in ("collect_stats", "grad_noise"):
        with pytest.raises(ValueError, match=f"--{option} true.*one process, not .*2"):
            train(*several, **{option: "true"})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(ValueError, match="--ngpu 2 needs --multiprocessing_distributed true"):
        train("--ngpu", "2")
    assert not (tmp_path / "exp").exists()
