"""Training by sampled speech and discriminators on ESPnet2's trainer: resumed, started from other weights, packed."""

from __future__ import annotations

import copy
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tiny_corpus
from flowavenet_plugin import load_vocoder
from flowavenet_plugin.bin import pack
from flowavenet_plugin.bin.vocoder_train import main
from flowavenet_plugin.tasks.discriminators import PERIODS, Discriminators
from flowavenet_plugin.tasks.vocoder import VocoderTask

#: Settings of the vocoder that trains so, besides those of the corpus.
CONF = dict(prediction_order=4, mel_range="[0.0,4000.0]", source="pulses", sampled_weight=1.0, discriminator_channels=2)
ADVERSARIAL = CONF | dict(adversarial_weight=0.2, blur=0.5)


@pytest.fixture
def train(corpus: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that trains in a folder, and returns it."""

    def run(name: str, conf: dict, *more: str, **options: object) -> Path:
        folder = tmp_path / name
        command = tiny_corpus.train_options(corpus / "train", corpus / "valid", folder, **options)
        for key, value in conf.items():
            command += ["--vocoder_conf", f"{key}={value}"]
        main([*command, *more])
        return folder

    return run


def tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read saved weights."""
    return torch.load(path, weights_only=True)


def test_it_learns_goes_on_and_speaks(train: Callable[..., Path], tmp_path: Path) -> None:
    folder = train("exp", ADVERSARIAL, max_epoch=1, ema_decay=0.5)
    first = tensors(folder / "latest.pth")
    judges = [name for name in first if ".adversary." in name]
    assert judges and all(torch.isfinite(value).all() for value in first.values())
    train("exp", ADVERSARIAL, max_epoch=2, ema_decay=0.5)
    second = tensors(folder / "latest.pth")
    assert any(not torch.equal(first[name], second[name]) for name in judges)
    assert any(not torch.equal(first[name], second[name]) for name in first if ".flow." in name)
    through = train("through", ADVERSARIAL, max_epoch=2, ema_decay=0.5)
    for name, value in tensors(through / "latest.pth").items():
        assert torch.equal(value, second[name]), name  # as if it had never stopped
    for weights in ("valid.loss.best.pth", "ema.pth"):
        vocoder = load_vocoder(folder / weights)
        assert vocoder.adversary is None and not vocoder.exact_stream
        feats = vocoder.feats_mean + vocoder.feats_std * torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
        assert torch.isfinite(vocoder.inference(feats, seed=1)).all()
    for refine in ("0", "2"):
        command = [
            "--model_file",
            str(folder / "ema.pth"),
            "--outpath",
            str(tmp_path / "voice.zip"),
            "--refine",
            refine,
        ]
        pack.main([*command, "--outpath", str(tmp_path / "voice.zip")])
        with zipfile.ZipFile(tmp_path / "voice.zip") as archive, archive.open("ema.pth") as file:
            packed = torch.load(file, weights_only=True)
        assert not any("adversary" in name for name in packed)
    model, _ = VocoderTask.build_model_from_file(model_file=tmp_path / "voice.zip")
    assert model.vocoder.adversary is not None  # which begins anew
    copy.deepcopy(model.vocoder)
    sound = load_vocoder(tmp_path / "voice.zip", refine=0).inference(feats, seed=1)
    assert torch.equal(sound, vocoder.inference(feats, seed=1))


def test_it_starts_from_weights_of_likelihood_alone_and_the_other_way_round(train: Callable[..., Path]) -> None:
    plain = train("plain", dict(prediction_order=4, mel_range="[0.0,4000.0]"), max_epoch=1)
    start = str(plain / "latest.pth")
    tuned = train("tuned", ADVERSARIAL, "--init_param", start, max_epoch=1, optim_conf="lr=0.0")
    before, after = tensors(plain / "latest.pth"), tensors(tuned / "latest.pth")
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert any(".adversary." in name for name in after)
    start = str(tuned / "latest.pth")
    train("judged", ADVERSARIAL, "--init_param", start, max_epoch=1, optim_conf="lr=0.0")
    judged = tensors(tuned.with_name("judged") / "latest.pth")
    assert all(torch.equal(value, judged[name]) for name, value in after.items())  # the judges come along
    back = train("back", CONF, "--init_param", start, max_epoch=1, optim_conf="lr=0.0")
    assert set(tensors(back / "latest.pth")) == set(before)


def test_a_reader_is_added_to_weights_without_one_and_trained_alone(
    train: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    conf = dict(prediction_order=4, mel_range="[0.0,4000.0]", source="pulses")
    reader = conf | dict(reader_channels=4, reader_layers=1, likelihood_weight=0.0)
    plain = train("plain", conf, max_epoch=1)
    start = str(plain / "latest.pth")
    with caplog.at_level("INFO"):
        folder = train("reader", reader, "--init_param", start, max_epoch=1, ema_decay=0.5)
    assert "has no vocoder.reader: it begins anew" in caplog.text
    before, first = tensors(plain / "latest.pth"), tensors(folder / "latest.pth")
    assert all(torch.equal(value, first[name]) for name, value in before.items())
    assert any(".reader." in name for name in first)
    train("reader", reader, "--init_param", start, max_epoch=2, ema_decay=0.5)
    through = train("through", reader, "--init_param", start, max_epoch=2, ema_decay=0.5)
    second = tensors(folder / "latest.pth")
    for name, value in tensors(through / "latest.pth").items():
        assert torch.equal(value, second[name]), name  # as if it had never stopped
        assert torch.equal(value, first[name]) == (".reader." not in name), name
    pack.main(["--model_file", str(folder / "ema.pth"), "--outpath", str(tmp_path / "voice.zip"), "--refine", "2"])
    vocoder = load_vocoder(tmp_path / "voice.zip")
    feats = vocoder.feats_mean + vocoder.feats_std * torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    assert (vocoder.aim(feats) - feats).abs().max() > 1e-4
    vocoder.checks = False  # after two epochs sound may be loud
    assert torch.isfinite(vocoder.inference(feats, seed=1)).all()
    # The flow goes on behind it, and what is read stays.
    both = conf | dict(reader_channels=4, reader_layers=1, reader_weight=0.0)
    after = train("both", both, "--init_param", str(folder / "latest.pth"), max_epoch=1)
    for name, value in tensors(after / "latest.pth").items():
        if ".reader." in name:
            assert torch.equal(value, second[name])
    assert any(not torch.equal(v, second[n]) for n, v in tensors(after / "latest.pth").items() if ".flow." in n)
    for wrong, start in ((both, plain / "latest.pth"), (conf, folder / "latest.pth")):
        with pytest.raises(ValueError) as stop:  # an untrained reader, and one that would be lost
            train("wrong", wrong, "--init_param", str(start), max_epoch=1)
        assert "vocoder.reader.first.weight" in str(stop.value)
    for asked in (":reader", ":raeder:reader"):  # by name: it isn't there
        with pytest.raises(ValueError, match="vocoder.reader.first.weight"):
            train("wrong", reader, "--init_param", f"{plain / 'latest.pth'}{asked}", max_epoch=1)
    # What isn't trained any more keeps its average.
    both = conf | dict(reader_channels=4, reader_layers=1)
    folder = train("average", both, max_epoch=1, ema_decay=0.9)
    average, last = tensors(folder / "ema.pth"), tensors(folder / "latest.pth")
    train("average", both | dict(likelihood_weight=0.0), max_epoch=2, ema_decay=0.9)
    for name, value in tensors(folder / "ema.pth").items():
        if ".flow." in name:
            assert torch.equal(value, average[name]), name
    assert any(not torch.equal(average[name], last[name]) for name in average if ".flow." in name)


def test_discriminators_judge_each_period_and_the_waveform_itself() -> None:
    judges = Discriminators(2)
    said = judges(torch.randn(3, 1, 600))
    assert len(said) == len(PERIODS) + 1
    assert all(len(layers) > 3 and layers[-1].shape[:1] == (3,) for layers in said)
    widest = [max(layer.shape[1] for layer in layers) for layers in said]
    assert max(widest) == 32  # 16 times as many
