"""A linear prediction that is fitted in closed form, by itself and at the start of a training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

import tiny_corpus
from flowavenet_plugin.bin.vocoder_train import main
from flowavenet_plugin.data.features import build_feats_extract, extract, full_settings
from flowavenet_plugin.tasks.prediction_start import evenly
from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder
from flowavenet_plugin.vocoder.training.prediction_fit import fit_prediction

SIZES = dict(n_block=1, n_flow=1, n_layer=1, filter_size=4, prediction_order=16)


def recordings(
    fs: int, n_fft: int, hop: int, log_base: float = 2.0, decades: float = 0.0
) -> tuple[dict, list[tuple[torch.Tensor, torch.Tensor]]]:
    """Return settings of features, and noise through resonances, of levels within so many decades, with features."""
    conf = full_settings(
        "fbank", dict(fs=fs, n_fft=n_fft, hop_length=hop, n_mels=20, fmin=0, fmax=fs // 2, log_base=log_base)
    )
    rng, items = np.random.default_rng(0), []
    for _ in range(10):
        parts = []
        for angle in np.pi * rng.uniform(0.1, 0.6, size=12):
            resonance = [1, -2 * 0.97 * np.cos(angle), 0.97**2]
            level = 0.02 * 10 ** -rng.uniform(0, decades)
            parts.append(lfilter([level], resonance, rng.standard_normal(10 * hop)))
        wav = np.concatenate(parts).astype(np.float32)
        _, feats = extract(build_feats_extract("fbank", conf), wav, fs, "clip")
        items.append((torch.from_numpy(wav), torch.from_numpy(feats)))
    return conf, items


@pytest.mark.parametrize("fs, n_fft, hop, scales", [(22050, 1024, 256, (16, 16)), (24000, 1200, 300, (15, 20))])
def test_the_fit_explains_recordings_better_than_the_mel_alone(
    fs: int, n_fft: int, hop: int, scales: tuple[int, int]
) -> None:
    conf, items = recordings(fs, n_fft, hop)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vocoder = FloWaveNetVocoder(fs, hop, 20, upsample_scales=scales, mel_range=(0.0, fs / 2), **SIZES).eval()
    vocoder.set_features("fbank", conf)
    feats = torch.cat([item[1] for item in items[:-1]])
    vocoder.set_feats_stats(feats.mean(dim=0), feats.std(dim=0))
    before = {name: value.clone() for name, value in vocoder.state_dict().items()}

    def likelihood(item: tuple[torch.Tensor, torch.Tensor]) -> float:
        wav, feats = item
        with torch.no_grad():
            size = len(feats) * hop
            wav = torch.nn.functional.pad(wav, (0, size - len(wav)))[None]
            residual, logdet = vocoder.prediction(wav, feats[None], vocoder.normalize(feats)[None])
        return float(logdet / size - 0.5 * residual.square().mean())

    plain = [likelihood(item) for item in items]
    assert fit_prediction(vocoder, items[:-1], n_fft) == len(feats)
    fitted = [likelihood(item) for item in items]
    assert all(after > start + 0.02 for start, after in zip(plain, fitted, strict=True))  # nats; the last wasn't seen
    changed = {name for name, value in vocoder.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"prediction.out.weight", "prediction.out.bias"}
    # It is the least of what it makes small: no step along the mean of the log-spectra's error is left.
    again = {name: vocoder.state_dict()[name].clone() for name in changed}
    fit_prediction(vocoder, items[:-1], n_fft)
    assert all(torch.equal(vocoder.state_dict()[name], value) for name, value in again.items())
    with pytest.raises(ValueError, match="no recording to fit"):
        fit_prediction(vocoder, [], n_fft)


def test_digital_silence_changes_nothing_that_is_heard() -> None:
    conf, items = recordings(22050, 1024, 256, log_base=10.0, decades=3.0)
    made = []
    for silence in (0, 100 * 256):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            vocoder = FloWaveNetVocoder(22050, 256, 20, mel_range=(0.0, 11025.0), **SIZES).eval()
        padded = [torch.cat([item[0], torch.zeros(silence)]) for item in items]
        extractor = build_feats_extract("fbank", conf)
        pairs = [(wav, torch.from_numpy(extract(extractor, wav.numpy(), 22050, "clip")[1])) for wav in padded]
        heard = torch.cat([item[1] for item in items])
        vocoder.set_feats_stats(heard.mean(dim=0), heard.std(dim=0))
        fit_prediction(vocoder, pairs, 1024)
        made.append(vocoder)
    wav, feats = items[0][0], items[0][1][:-1]
    lost = []
    for vocoder in made:
        with torch.no_grad():
            size = len(feats) * 256
            residual, logdet = vocoder.prediction(wav[None, :size], feats[None], vocoder.normalize(feats)[None])
        lost.append(float(logdet / size - 0.5 * residual.square().mean()))
    assert lost[1] > lost[0] - 0.05, lost


def test_utterances_are_taken_from_all_over_the_list() -> None:
    assert evenly([*"abcdefgh"], 3) == ["a", "c", "f"] and evenly([*"ab"], 5) == ["a", "b"]


@pytest.fixture
def train(corpus: Path, tmp_path: Path) -> Callable[..., dict[str, torch.Tensor]]:
    """Return a function that trains with a linear prediction, and returns the weights."""

    def run(name: str, *more: str, shapes: Path | None = None, **options: object) -> dict[str, torch.Tensor]:
        folder = tmp_path / name
        options = dict(max_epoch=1, optim_conf="lr=0.0") | options
        command = tiny_corpus.train_options(corpus / "train", corpus / "valid", folder, **options)
        if shapes is not None:
            command[command.index("--train_shape_file") + 1] = str(shapes)
        conf = ["--vocoder_conf", "prediction_order=4", "--vocoder_conf", "mel_range=[0.0,4000.0]"]
        main([*command, *conf, *more])
        return torch.load(folder / "latest.pth", weights_only=True)

    return run


def test_a_new_training_starts_so_and_no_other_one(
    train: Callable[..., dict[str, torch.Tensor]], corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = "vocoder.prediction.out.weight"
    with caplog.at_level("INFO"):
        fitted = train("fitted")
    assert "the linear prediction is fitted to" in caplog.text and fitted[name].any()
    assert not train("plain", fit_prediction=0)[name].any()
    few = train("few", fit_prediction=1)[name]
    assert few.any() and not torch.equal(few, fitted[name])
    plain = str(tmp_path / "plain" / "latest.pth")
    assert not train("started", "--init_param", plain)[name].any()
    assert torch.equal(train("part", "--init_param", f"{plain}:flow:flow")[name], fitted[name])
    caplog.clear()
    with caplog.at_level("INFO"):
        again = train("plain", max_epoch=2)  # goes on
    assert not again[name].any() and "is fitted to" not in caplog.text
    shapes = tmp_path / "utt2num_samples"  # the training set is what the shape file lists
    lines = (corpus / "train" / "utt2num_samples").read_text().splitlines()
    shapes.write_text("".join(f"{line}\n" for line in lines[:2]))
    some = train("some", shapes=shapes)[name]
    assert some.any() and not torch.equal(some, fitted[name])
    with pytest.raises(ValueError, match="--fit_prediction must be a number of utterances from 0, not -1"):
        train("wrong", fit_prediction=-1)
