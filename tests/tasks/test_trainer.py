"""What the trainer adds to ESPnet2's: skipped updates, schedules, averaged weights, samples, and a telling log."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

import tiny_corpus
from flowavenet_plugin import load_vocoder
from flowavenet_plugin.bin.vocoder_train import main
from flowavenet_plugin.data.scp import open_feats
from flowavenet_plugin.tasks.averaging import WeightAverage
from flowavenet_plugin.tasks.schedule import BudgetHalving
from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder
from flowavenet_plugin.vocoder.registry import VOCODERS, register_vocoder


class Fragile(FloWaveNetVocoder):
    """Fails in chosen calls of the training loss; which and how, class attributes say."""

    bad_calls: tuple[int, ...] = ()
    kind = "input"
    calls = 0

    def loss(
        self, wav: Tensor, feats: Tensor, wav_lengths: Tensor | None, feats_lengths: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Return a loss that may not be finite."""
        bad = False
        if self.training:
            Fragile.calls += 1
            bad = Fragile.calls in self.bad_calls
        if bad and self.kind == "input":
            wav = wav * float("inf")
        loss, stats, weight = super().loss(wav, feats, wav_lengths, feats_lengths)
        if bad and self.kind == "loss":
            loss = loss + float("inf")  # its gradient is finite
        if bad and self.kind == "gradient":
            loss = loss + torch.sqrt(0.0 * self.flow.upsampler.layers[0].bias.sum())  # finite; its gradient isn't
        return loss, stats, weight


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Fragile]]:
    """Register the fragile vocoder for the time of a test."""
    register_vocoder("fragile", Fragile)
    monkeypatch.setattr(Fragile, "calls", 0)
    monkeypatch.setattr(Fragile, "bad_calls", ())
    monkeypatch.setattr(Fragile, "kind", "input")
    yield Fragile
    VOCODERS.pop("fragile")


@pytest.fixture
def train(corpus: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that trains and returns the folder of the experiment."""

    def run(name: str = "exp", **changes: object) -> Path:
        changes = {"num_workers": 0, "max_epoch": 1, **changes}
        main(tiny_corpus.train_options(corpus / "train", corpus / "valid", tmp_path / name, **changes))
        return tmp_path / name

    return run


def weights(path: Path) -> dict[str, Tensor]:
    """Read saved weights."""
    return torch.load(path, weights_only=True)


def figures(exp: Path, epoch: int = 1, phase: str = "train") -> dict[str, float]:
    """Read the figures of an epoch."""
    return torch.load(exp / "checkpoint.pth", weights_only=False)["reporter"]["stats"][epoch][phase]


@pytest.mark.parametrize("kind", ["input", "loss", "gradient"])
@pytest.mark.parametrize("call", [1, 2])
def test_one_bad_batch_is_skipped_and_leaves_no_trace(
    train: Callable[..., Path], fragile: type[Fragile], caplog: pytest.LogCaptureFixture, kind: str, call: int
) -> None:
    fragile.bad_calls, fragile.kind = (call,), kind
    exp = train(vocoder="fragile")
    assert all(bool(value.isfinite().all()) for value in weights(exp / "1epoch.pth").values())
    assert figures(exp)["skipped_updates"] == 1 and figures(exp)["total_count"] == 3
    assert re.search(r"update skipped.* 1 in a row, 1 in this epoch; utterances utt\d utt\d", caplog.text)
    states = torch.load(exp / "checkpoint.pth", weights_only=False)["optimizers"][0]["state"]
    assert {float(state["step"]) for state in states.values()} == {2.0}
    assert all(bool(value.isfinite().all()) for state in states.values() for value in state.values())


def test_act_norm_starts_from_the_first_good_batch(train: Callable[..., Path], fragile: type[Fragile]) -> None:
    good = weights(train("good", vocoder="fragile", optim_conf="lr=0.0") / "1epoch.pth")
    fragile.calls, fragile.bad_calls = 0, (1,)
    bad = weights(train("bad", vocoder="fragile", optim_conf="lr=0.0") / "1epoch.pth")
    norms = [key.removesuffix("loc") for key in good if key.endswith("actnorm.loc")]
    assert norms and all(float(bad[f"{norm}initialized"]) == 1 for norm in norms)
    assert float(bad[f"{norms[0]}scale"].min()) > 1.5  # later ones find samples that are standardised already
    # From another batch, but from tones like those.
    for norm in norms:
        assert 0.2 < float((bad[f"{norm}scale"] / good[f"{norm}scale"]).mean()) < 5
        assert not torch.equal(bad[f"{norm}loc"], good[f"{norm}loc"])


def test_many_bad_batches_in_a_row_stop_with_advice(train: Callable[..., Path], fragile: type[Fragile]) -> None:
    fragile.calls, fragile.bad_calls = 0, (1, 3)
    exp = train(vocoder="fragile", max_epoch=2, max_skipped=2)  # not in a row
    kept = (exp / "checkpoint.pth").read_bytes()
    fragile.calls, fragile.bad_calls = 0, (2, 3)
    with pytest.raises(RuntimeError) as error:
        train(vocoder="fragile", max_epoch=3, max_skipped=2)
    assert "2 updates in a row" in str(error.value) and "learning rate" in str(error.value)
    assert (exp / "checkpoint.pth").read_bytes() == kept


def test_an_epoch_without_any_update_is_an_error(train: Callable[..., Path], fragile: type[Fragile]) -> None:
    fragile.bad_calls = (1, 2, 3)
    with pytest.raises(RuntimeError, match="all 3 updates of the epoch were skipped"):
        train(vocoder="fragile")
    with pytest.raises(RuntimeError, match="3 iterations has no update of accum_grad 4"):
        train("none", accum_grad=4)


def test_the_learning_rate_follows_the_budget(train: Callable[..., Path]) -> None:
    exp = train(max_epoch=4, lr_halvings="1/4", optim_conf="lr=0.002")
    assert [figures(exp, epoch)["optim0_lr0"] for epoch in (1, 2, 3, 4)] == pytest.approx([2e-3, 1e-3, 1e-3, 1e-3])
    train(max_epoch=8, lr_halvings="5/8", optim_conf="lr=0.002")  # goes on with another budget, at once
    assert [figures(exp, epoch)["optim0_lr0"] for epoch in (4, 5, 6, 8)] == pytest.approx([1e-3, 2e-3, 1e-3, 1e-3])


@pytest.mark.parametrize("points", [["0"], ["7/7"], ["half"], ["1/0"], [1.5]])
def test_points_outside_the_budget_are_refused(points: list[str | float]) -> None:
    optimizer = torch.optim.SGD([torch.zeros((), requires_grad=True)], lr=0.1)
    with pytest.raises(ValueError, match=f"{points[0]}"):
        BudgetHalving(optimizer, points, 10)


def test_halvings_and_a_scheduler_exclude_each_other(train: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match="scheduler or lr_halvings"):
        train(lr_halvings="1/2", scheduler="exponentiallr", scheduler_conf="gamma=0.5")


def test_the_average_is_the_formula() -> None:
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    average = WeightAverage(optimizer, 0.3)
    expected = None
    for update in range(6):
        optimizer.zero_grad()
        parameter.square().sum().backward()
        optimizer.step()
        decay = min(0.3, (1 + update) / (10 + update))
        now = parameter.detach().clone()
        expected = now if expected is None else decay * expected + (1 - decay) * now
    with average.applied():
        torch.testing.assert_close(parameter.detach(), expected)
    assert torch.equal(parameter.detach(), now)
    for decay in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f"not {decay}"):
            WeightAverage(optimizer, decay)


def test_averaged_weights_are_a_vocoder_and_change_nothing_else(train: Callable[..., Path]) -> None:
    plain, averaged = train("plain", max_epoch=2), train("averaged", max_epoch=2, ema_decay=0.9)
    a, b = weights(plain / "2epoch.pth"), weights(averaged / "2epoch.pth")
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    vocoder = load_vocoder(averaged / "ema.pth")
    assert vocoder(vocoder.feats_mean + vocoder.feats_std * torch.randn(5, tiny_corpus.N_MELS)).isfinite().all()
    assert not all(torch.equal(value, b[f"vocoder.{key}"]) for key, value in vocoder.state_dict().items())
    valid = figures(averaged, 2, "valid")
    assert np.isfinite(valid["ema_loss"]) and valid["ema_loss"] != valid["loss"]
    assert valid["loss"] == figures(plain, 2, "valid")["loss"]


def test_the_log_says_how_training_goes(train: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    exp = train(max_epoch=2, log_interval=3)
    lines = [line for line in caplog.messages if "nats/sample" in line]
    assert len(lines) == 2
    number = r"(-?\d+\.\d+(?:e[-+]?\d+)?)"
    match = re.fullmatch(
        rf"epoch 1/2, iteration 3/3: log-likelihood {number} nats/sample \(log p\(z\) {number}, log-determinant "
        rf"{number}\), gradient norm \S+, \S+ steps/s \(\S+ k samples/s\), {number} GB, .* left",
        lines[0],
    )
    assert match, lines[0]
    likelihood, log_p, logdet, memory = map(float, match.groups())
    assert likelihood == pytest.approx(figures(exp)["log_likelihood"], abs=1e-3)
    assert likelihood == pytest.approx(log_p + logdet, abs=2e-3) and memory > 0.1
    assert "0 seconds left" in lines[1]


def test_a_sample_that_is_not_finite_does_not_end_training(
    train: Callable[..., Path],
    fragile: type[Fragile],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(fragile, "inference", lambda self, feats, **_: feats.new_full((64,), float("nan")))
    exp = train(vocoder="fragile", sample_interval=1)
    assert (exp / "1epoch.pth").exists() and "no sample of utt0" in caplog.text


def test_samples_of_whole_clips_at_intervals(train: Callable[..., Path], corpus: Path) -> None:
    exp = train(max_epoch=4, sample_interval=2, num_samples=1, use_tensorboard="true", keep_nbest_models=9)
    pictures = sorted(path.name for path in (exp / "images").glob("sample_*"))
    assert pictures == ["sample_utt0_2epoch.png", "sample_utt0_4epoch.png"]
    events = EventAccumulator(str(exp / "tensorboard" / "train"), size_guidance={"audio": 0, "images": 0}).Reload()
    assert events.Tags()["images"] == ["sample/utt0"] and events.Tags()["audio"] == ["natural/utt0", "synthesised/utt0"]
    # The whole utterance, and not a training segment of 512 samples, by the weights of that epoch, always with the
    # same noise.
    wav, _ = soundfile.read(corpus / "valid" / "utt0.wav", dtype="float32")
    feats = torch.from_numpy(open_feats(corpus / "valid" / "feats.scp")["utt0"])
    for sound, epoch in zip(events.Audio("synthesised/utt0"), (2, 4), strict=True):
        vocoder = load_vocoder(exp / f"{epoch}epoch.pth")
        expected = vocoder.inference(feats, seed=zlib.crc32(b"utt0"))[: len(wav)].clamp(-1, 1)
        played, rate = soundfile.read(io.BytesIO(sound.encoded_audio_string), dtype="float32")
        assert sound.step == epoch and rate == tiny_corpus.FS and len(wav) == 2400
        np.testing.assert_allclose(played, expected, atol=2**-14)
    for sound in events.Audio("natural/utt0"):
        played, _ = soundfile.read(io.BytesIO(sound.encoded_audio_string), dtype="float32")
        np.testing.assert_allclose(played, wav, atol=2**-14)


def test_sound_samples_need_no_pictures(train: Callable[..., Path]) -> None:
    exp = train(sample_interval=1, use_tensorboard="true", use_matplotlib="false", num_samples=2)
    events = EventAccumulator(str(exp / "tensorboard" / "train"), size_guidance={"audio": 0}).Reload()
    assert len(events.Tags()["audio"]) == 4 and events.Tags()["images"] == []
    assert not (exp / "images").exists()
    config = yaml.safe_load((exp / "config.yaml").read_text())
    assert config["use_matplotlib"] is False and config["num_samples"] == 2


def test_a_process_draws_its_own_numbers_in_training(
    train: Callable[..., Path], fragile: type[Fragile], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[float] = []
    plain = FloWaveNetVocoder.loss

    def loss(self: FloWaveNetVocoder, *batch: Tensor) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        if self.training:
            drawn.append(torch.rand(()).item())
        return plain(self, *batch)

    monkeypatch.setattr(FloWaveNetVocoder, "loss", loss)
    train("one", max_epoch=2)
    assert len(set(drawn)) == 6
    first, drawn[:] = list(drawn), []
    train("again", max_epoch=2)
    assert drawn == first
    drawn.clear()
    train("other", max_epoch=2, seed=4)  # its first epoch isn't the second of the other
    assert not set(drawn) & set(first)
