"""Options of a run that goes on: each is taken up, or refused with both values before anything is written."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

import tiny_corpus
from flowavenet_plugin.bin.vocoder_train import main


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with training and validation sets, a run of one epoch, and one with an average and halvings."""
    root = tmp_path_factory.mktemp("corpus")
    tiny_corpus.make_corpus(root / "train")
    tiny_corpus.make_corpus(root / "valid", n_utts=2)
    run(root, root / "exp")
    run(root, root / "rich", max_epoch=2, ema_decay=0.9, lr_halvings="1/4")
    return root


def run(corpus: Path, folder: Path, *last: str, **changes: object) -> None:
    """Train; words of ``last`` come after all options."""
    changes = {"num_workers": 0, "max_epoch": 1, "sample_interval": 0, **changes}
    main([*tiny_corpus.train_options(corpus / "train", corpus / "valid", folder, **changes), *last])


@pytest.fixture
def go_on(corpus: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that trains in a copy of a run, the same copy each time."""

    def train(*last: str, of: str = "exp", **changes: object) -> Path:
        if not (tmp_path / of).exists():
            shutil.copytree(corpus / of, tmp_path / of, symlinks=True)
        run(corpus, tmp_path / of, *last, **changes)
        return tmp_path / of

    return train


def content(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def refused(go_on: Callable[..., Path], corpus: Path, tmp_path: Path) -> Callable[..., str]:
    """Return a function that trains in a copy of a run, which must fail and change nothing; it returns the message."""

    def train(*last: str, of: str = "exp", **changes: object) -> str:
        with pytest.raises(ValueError) as error:
            go_on(*last, of=of, **changes)
        assert content(tmp_path / of) == content(corpus / of)
        return str(error.value)

    return train


def states(exp: Path) -> dict:
    """Read the checkpoint."""
    return torch.load(exp / "checkpoint.pth", weights_only=False)


def rate(exp: Path, epoch: int) -> float:
    """Return the learning rate of an epoch."""
    return states(exp)["reporter"]["stats"][epoch]["train"]["optim0_lr0"]


def config(exp: Path) -> dict:
    """Read config.yaml."""
    return yaml.safe_load((exp / "config.yaml").read_text())


def test_a_smaller_learning_rate_is_taken_up_by_the_updates(go_on: Callable[..., Path]) -> None:
    exp = go_on(max_epoch=2, optim_conf="lr=5e-4")  # as the advice for losses that aren't finite has it
    assert [rate(exp, epoch) for epoch in (1, 2)] == [0.002, 0.0005]
    assert config(exp)["optim_conf"] == {"lr": 0.0005}
    before = torch.load(exp / "2epoch.pth", weights_only=True)
    go_on(max_epoch=3, optim_conf="lr=0.0")
    after = torch.load(exp / "3epoch.pth", weights_only=True)
    assert all(torch.equal(value, after[key]) for key, value in before.items())  # the updates had that rate, too


def test_a_kill_before_the_first_checkpoint_leaves_the_old_rate_nowhere(
    go_on: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = torch.save

    def killed(obj: object, file: object, *args: object, **kwargs: object) -> None:
        if str(getattr(file, "name", file)).endswith(".pth") or "checkpoint" in str(getattr(file, "name", file)):
            raise KeyboardInterrupt
        plain(obj, file, *args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(torch, "save", killed)
        go_on(max_epoch=2, optim_conf="lr=5e-4")
    exp = go_on(max_epoch=2, optim_conf="lr=5e-4")  # config.yaml has that rate by now, the checkpoint hasn't
    assert rate(exp, 2) == 0.0005


def test_other_numbers_of_the_optimiser_are_taken_up(go_on: Callable[..., Path]) -> None:
    exp = go_on("--optim_conf", "betas=[0.5, 9e-1]", "--optim_conf", "weight_decay=1E-3", max_epoch=2)
    group = states(exp)["optimizers"][0]["param_groups"][0]
    assert (list(group["betas"]), group["weight_decay"], group["lr"]) == ([0.5, 0.9], 0.001, 0.002)
    go_on(max_epoch=3)  # left out, they are the optimiser's own again
    group = states(exp)["optimizers"][0]["param_groups"][0]
    assert (list(group["betas"]), group["weight_decay"]) == ([0.9, 0.999], 0)


def test_halvings_may_come_and_go(go_on: Callable[..., Path]) -> None:
    exp = go_on(max_epoch=4, lr_halvings="1/4")
    assert [rate(exp, epoch) for epoch in (1, 2, 4)] == [0.002, 0.001, 0.001]
    go_on(max_epoch=5, lr_halvings="4/5", optim_conf="lr=0.004")
    assert rate(exp, 5) == 0.002
    go_on(max_epoch=6)
    assert rate(exp, 6) == 0.002
    exp = go_on(of="rich", max_epoch=4, ema_decay=0.9, lr_halvings="3/4", optim_conf="lr=1e-3")
    assert [rate(exp, epoch) for epoch in (2, 3, 4)] == [0.001, 0.001, 0.0005]


def test_an_average_may_come_and_go(go_on: Callable[..., Path]) -> None:
    exp = go_on(max_epoch=2, ema_decay=0.9)
    assert (exp / "ema.pth").exists() and states(exp)["optimizers"][0]["param_groups"][0]["ema_updates"] == 3
    old = (exp / "ema.pth").read_bytes()
    go_on(max_epoch=3)
    assert not (exp / "ema.pth").exists() and (exp / "ema.till2epoch.pth").read_bytes() == old  # not that of epoch 3
    optimizer = states(exp)["optimizers"][0]
    assert "ema_updates" not in optimizer["param_groups"][0]
    assert not any("ema" in state for state in optimizer["state"].values())
    go_on(max_epoch=4, ema_decay=0.9)  # starts anew, from the weights of then
    assert (exp / "ema.pth").exists() and states(exp)["optimizers"][0]["param_groups"][0]["ema_updates"] == 3


def test_batches_and_segments_are_taken_up(
    go_on: Callable[..., Path], caplog: pytest.LogCaptureFixture, corpus: Path
) -> None:
    caplog.set_level("INFO")
    exp = go_on(max_epoch=2, batch_size=3, segment_length=256)
    steps, thousands = re.search(r"iteration 2/2: .* (\S+) steps/s \((\S+) k samples/s\)", caplog.text).groups()
    assert 1000 * float(thousands) / float(steps) == pytest.approx(3 * 256, rel=0.02)
    assert (config(exp)["batch_size"], config(exp)["segment_length"]) == (3, 256)


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(scheduler="exponentiallr", scheduler_conf="gamma=0.5"), ["scheduler exponentiallr", "has None", "--tag"]),
        (dict(optim_conf="amsgrad=true"), ["optim_conf {'amsgrad': True}", "has {'lr': 0.002}"]),
        (dict(exclude_weight_decay="true"), ["exclude_weight_decay True", "has False"]),
        (dict(lr_halvings="3/2"), ["lr_halvings", "3/2"]),
        (dict(ema_decay="1.5"), ["ema_decay", "1.5"]),
        (dict(best_model_criterion="valid,ema_loss,min", ema_decay="0.9"), ["valid ema_loss", "epoch 1"]),
    ],
)
def test_what_cannot_be_taken_up_is_refused(refused: Callable[..., str], changes: dict, words: list[str]) -> None:
    message = refused(max_epoch=2, **changes)
    assert all(word in message for word in words), message


def test_a_rate_below_a_scheduler_is_refused(corpus: Path, tmp_path: Path) -> None:
    options = dict(scheduler="exponentiallr", scheduler_conf="gamma=5e-1")
    run(corpus, tmp_path / "exp", **options)
    assert states(tmp_path / "exp")["optimizers"][0]["param_groups"][0]["lr"] == 0.001
    before = content(tmp_path / "exp")
    for changes, words in (
        (dict(optim_conf="lr=5e-4"), ["{'lr': 0.0005}", "{'lr': 0.002}", "exponentiallr"]),
        (dict(scheduler_conf="gamma=9e-1"), ["scheduler_conf {'gamma': 0.9}", "{'gamma': 0.5}"]),
        (dict(scheduler="none", lr_halvings="1/2"), ["scheduler None", "exponentiallr"]),
    ):
        with pytest.raises(ValueError) as error:
            run(corpus, tmp_path / "exp", max_epoch=2, **{**options, **changes})
        assert all(word in str(error.value) for word in words), str(error.value)
        assert content(tmp_path / "exp") == before
    run(corpus, tmp_path / "exp", max_epoch=2, **options)
    assert rate(tmp_path / "exp", 2) == 0.001


def test_a_complete_run_takes_up_nothing(refused: Callable[..., str], go_on: Callable[..., Path]) -> None:
    for changes, words in (
        (dict(optim_conf="lr=5e-4"), ["optim_conf {'lr': 0.0005}", "{'lr': 0.002}", "1 epochs", "max_epoch"]),
        (dict(batch_size=3), ["batch_size 3", "with 2"]),
        (dict(ema_decay=0.5), ["ema_decay 0.5", "with 0.0"]),
    ):
        message = refused(max_epoch=1, **changes)
        assert all(word in message for word in words), message
    exp = go_on(max_epoch=2)
    go_on(max_epoch=1)  # what is there stays
    assert config(exp)["max_epoch"] == 2 and (exp / "2epoch.pth").exists()


def test_other_weights_to_start_from_are_refused(refused: Callable[..., str], corpus: Path, tmp_path: Path) -> None:
    weights = corpus / "rich/2epoch.pth"
    message = refused(max_epoch=2, init_param=weights)  # were dropped without a word
    assert str(weights) in message and "started from none" in message and "--tag" in message
    run(corpus, tmp_path / "tuned", init_param=weights)
    assert str(weights) in (tmp_path / "tuned/config.yaml").read_text()
    run(corpus, tmp_path / "tuned", init_param=weights, max_epoch=2)  # the same command again
    shutil.copy(weights, tmp_path / "copy.pth")
    run(corpus, tmp_path / "tuned", init_param=tmp_path / "copy.pth", max_epoch=2)  # the same weights
    before = content(tmp_path / "tuned")
    other = corpus / "exp/1epoch.pth"
    with pytest.raises(ValueError) as error:
        run(corpus, tmp_path / "tuned", init_param=other, max_epoch=3)
    assert str(weights) in str(error.value) and str(other) in str(error.value)
    shutil.copy(other, tmp_path / "copy.pth")  # another content below the same name
    with pytest.raises(ValueError, match="was started from"):
        run(corpus, tmp_path / "tuned", init_param=tmp_path / "copy.pth", max_epoch=3)
    assert content(tmp_path / "tuned") == before
    run(corpus, tmp_path / "tuned", max_epoch=3)  # none named: it goes on, and still knows
    with pytest.raises(ValueError, match="was started from"):
        run(corpus, tmp_path / "tuned", init_param=other, max_epoch=4)


def test_other_parts_of_the_same_weights_are_refused(corpus: Path, tmp_path: Path) -> None:
    weights, exp = corpus / "exp/1epoch.pth", tmp_path / "tuned"
    run(corpus, exp, init_param=f"{weights}:flow.upsampler")
    run(corpus, exp, init_param=f"{weights}:vocoder.flow.upsampler:flow.upsampler", max_epoch=2)  # the same, spelt out
    before = content(exp)
    for other in (weights, f"{weights}:flow", f"{weights}:flow.upsampler:flow.upsampler:flow.upsampler.layers.0"):
        with pytest.raises(ValueError, match="was started from") as error:
            run(corpus, exp, init_param=other, max_epoch=3)
        assert str(other) in str(error.value) and "flow.upsampler" in str(error.value)
    with pytest.raises(ValueError, match="--ignore_init_mismatch True: .* with False"):
        run(corpus, exp, init_param=f"{weights}:flow.upsampler", ignore_init_mismatch="true", max_epoch=3)
    assert content(exp) == before
    older = states(exp)  # which knew no parts, and recorded the file alone
    started = older["options"]["started_from"]
    del started["ignore_init_mismatch"]
    started["init_param"] = {name: value.split(":")[0] for name, value in started["init_param"].items()}
    torch.save(older, exp / "checkpoint.pth")
    with pytest.raises(ValueError, match="was started from"):
        run(corpus, exp, init_param=weights, max_epoch=3)
    run(corpus, exp, init_param=f"{weights}:flow.upsampler", max_epoch=3)


def test_other_statistics_are_refused(refused: Callable[..., str], corpus: Path, tmp_path: Path) -> None:
    message = refused(max_epoch=2, feats_stats=corpus / "valid/feats_stats.npz")
    for words in (str(corpus / "valid/feats_stats.npz"), str(corpus / "train/feats_stats.npz"), "--tag"):
        assert words in message
    assert "feats_stats none" in refused("--feats_stats", "none", max_epoch=2)


def test_numbers_in_options_are_numbers(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text("optim_conf: {lr: 1e-3, eps: 1E-8}\nvocoder_conf: {temperature: 7e-1}\n")
    options = tiny_corpus.train_options(
        corpus / "train", corpus / "valid", tmp_path / "exp", num_workers=0, max_epoch=1
    )
    at = options.index("--optim_conf")
    del options[at : at + 2]
    main([*options, "--config", str(tmp_path / "train.yaml")])
    found = config(tmp_path / "exp")
    assert found["optim_conf"] == {"lr": 0.001, "eps": 1e-8} and found["vocoder_conf"]["temperature"] == 0.7
    assert rate(tmp_path / "exp", 1) == 0.001
