"""Saving and loading: moved folders, broken and unsafe files, weights that don't fit."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from flowavenet_plugin import load_vocoder
from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder
from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder
from flowavenet_plugin.vocoder.loading import read_state_dict, save_vocoder
from flowavenet_plugin.vocoder.registry import VOCODERS, build_vocoder, register_vocoder

CONFIG = dict(
    vocoder="flowavenet",
    vocoder_conf=dict(n_block=2, n_flow=2, n_layer=1, filter_size=4, upsample_scales=[3, 4], temperature=0.7),
    feats_extract="fbank",
    feats_extract_conf=dict(fs=16000, hop_length=12, n_mels=5, n_fft=64),
)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[FloWaveNetVocoder, Path]:
    """Return a vocoder and its weights on disk."""
    torch.manual_seed(0)
    vocoder = FloWaveNetVocoder(16000, 12, 5, **CONFIG["vocoder_conf"]).eval()
    for parameter in vocoder.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    vocoder.set_feats_stats(torch.arange(5.0), torch.ones(5))
    return vocoder, save_vocoder(vocoder, CONFIG, tmp_path / "exp")


def test_loads_with_the_config_beside_it_also_after_a_move(
    saved: tuple[FloWaveNetVocoder, Path], tmp_path: Path
) -> None:
    vocoder, path = saved
    feats = torch.randn(4, 5) + torch.arange(5.0)
    moved = tmp_path / "else where"
    shutil.move(path.parent, moved)
    (moved / "valid.loss.best.pth").symlink_to("model.pth")
    for name in ("model.pth", "valid.loss.best.pth"):
        loaded = load_vocoder(moved / name)
        assert torch.equal(loaded.inference(feats, seed=1), vocoder.inference(feats, seed=1))
    assert (loaded.fs, loaded.hop_length, loaded.n_mels, loaded.temperature) == (16000, 12, 5, 0.7)
    assert loaded.feats_extract == "fbank" and loaded.feats_extract_conf["n_fft"] == 64
    assert not loaded.training and loaded(feats).shape == (48,)
    shutil.move(moved / "config.yaml", tmp_path / "other.yaml")
    assert load_vocoder(str(moved / "model.pth"), tmp_path / "other.yaml").fs == 16000
    with pytest.raises(FileNotFoundError, match="config.yaml"):
        load_vocoder(moved / "model.pth")
    with pytest.raises(FileNotFoundError, match="gone.pth"):
        load_vocoder(moved / "gone.pth", tmp_path / "other.yaml")


def test_loads_a_training_checkpoint(saved: tuple[FloWaveNetVocoder, Path]) -> None:
    vocoder, path = saved
    checkpoint = path.with_name("checkpoint.pth")
    torch.save(dict(model=torch.load(path), optimizers=[{"state": {}}], scaler=None), checkpoint)
    feats = torch.randn(4, 5) + torch.arange(5.0)
    assert torch.equal(load_vocoder(checkpoint).inference(feats, seed=1), vocoder.inference(feats, seed=1))


def test_loads_a_packed_model(saved: tuple[FloWaveNetVocoder, Path], tmp_path: Path) -> None:
    vocoder, path = saved
    feats = torch.randn(4, 5) + torch.arange(5.0)
    expected = vocoder.inference(feats, seed=1)
    assert torch.equal(load_vocoder(path.parent).inference(feats, seed=1), expected)
    nested = tmp_path / "packed" / "exp" / "voc"  # as ESPnet2's own archives hold paths
    shutil.copytree(path.parent, nested)
    archive = shutil.make_archive(str(tmp_path / "voice"), "zip", tmp_path / "packed")
    assert torch.equal(load_vocoder(archive).inference(feats, seed=1), expected)
    shutil.copy(path, path.with_name("valid.loss.best.pth"))
    assert torch.equal(load_vocoder(path.parent).inference(feats, seed=1), expected)
    shutil.move(path, path.with_name("1epoch.pth"))
    shutil.move(path.with_name("valid.loss.best.pth"), path.with_name("2epoch.pth"))
    with pytest.raises(ValueError, match="several weights.*1epoch.pth, 2epoch.pth"):
        load_vocoder(path.parent)
    shutil.copytree(nested, tmp_path / "packed" / "exp" / "other")
    with pytest.raises(ValueError, match="one config.yaml beside weights.*found 2"):
        load_vocoder(tmp_path / "packed")
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    with pytest.raises(ValueError, match="broken.zip"):
        load_vocoder(tmp_path / "broken.zip")


class Malicious:
    """Unpickling this would make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_with_code_is_refused(saved: tuple[FloWaveNetVocoder, Path], tmp_path: Path) -> None:
    _, path = saved
    torch.save({"vocoder.x": Malicious(tmp_path / "harm")}, path)
    with pytest.raises(ValueError, match="model.pth.*more than weights"):
        load_vocoder(path)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", "half"])
def test_a_broken_file(saved: tuple[FloWaveNetVocoder, Path], content: bytes | str) -> None:
    _, path = saved
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    with pytest.raises(ValueError, match="model.pth"):
        load_vocoder(path)


def test_weights_must_fit_the_configuration(saved: tuple[FloWaveNetVocoder, Path]) -> None:
    _, path = saved
    states = torch.load(path)
    config = path.with_name("config.yaml")

    def refused(*words: str) -> None:
        with pytest.raises(ValueError) as error:
            load_vocoder(path)
        assert all(word in str(error.value) for word in (str(path), str(config), *words)), str(error.value)

    torch.save({key: value for key, value in states.items() if key != "vocoder.feats_mean"}, path)
    refused("1 missing: feats_mean")
    torch.save({**states, "vocoder.more": torch.zeros(1)}, path)
    refused("1 not in the model: more")
    torch.save(states, path)
    other = {**CONFIG, "vocoder_conf": {**CONFIG["vocoder_conf"], "filter_size": 6}}
    config.write_text(yaml.safe_dump(other))
    refused("other shapes", "(4,", "(6,")


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(vocoder="hifigan"), ["hifigan", "flowavenet"]),
        (dict(vocoder_conf=dict(n_bloks=3)), ["n_bloks", "flowavenet"]),
        (dict(vocoder_conf=dict(upsample_scales=[2, 2])), ["4 samples", "12"]),
        (dict(feats_extract_conf=dict(fs=16000, n_mels=5)), ["hop_length"]),
        (dict(vocoder=None), ["not the configuration of a vocoder", "vocoder"]),
    ],
)
def test_configurations_that_cannot_be(saved: tuple[FloWaveNetVocoder, Path], change: dict, words: list[str]) -> None:
    _, path = saved
    path.with_name("config.yaml").write_text(yaml.safe_dump({**CONFIG, **change}))
    with pytest.raises(ValueError) as error:
        load_vocoder(path)
    assert all(word in str(error.value) for word in (*words, "config.yaml")), str(error.value)


@pytest.mark.parametrize(
    "old, new, message",
    [
        (b"n_block: 2", b"n_block: 4294967295", "n_block must be whole numbers up to 32"),
        (b"n_flow: 2", b"n_flow: 0", "n_flow must be at least 1"),
        (b"n_flow: 2", b"n_flow: two", "n_flow must be whole numbers"),
        (b"hop_length: 12", b"hop_length: .nan", "hop_length must be a whole number"),
        (b"n_mels: 5", b"n_mels: 999999999", "n_mels must be a whole number from 1 to 16384"),
        (b"vocoder: flowavenet", b"vocoder: [flowavenet]", "vocoder must be a name"),
        (b"vocoder: flowavenet", b"vocoder: \xe4", "not a YAML file"),
        (b"n_fft: 64", b"n_fft: " + b"9" * 5000, "not a YAML file"),
        (b"n_fft: 64", b"n_fft: 64\n  fmax: no\nrefine: 1", "fmax"),
        (b"n_fft: 64", b"n_fft: 64\n  fmin: [1]\nrefine: 1", ""),
    ],
)
def test_a_damaged_configuration_in_a_zip_file(
    saved: tuple[FloWaveNetVocoder, Path], tmp_path: Path, old: bytes, new: bytes, message: str
) -> None:
    _, path = saved
    config = path.with_name("config.yaml")
    content = config.read_bytes()
    assert old in content
    config.write_bytes(content.replace(old, new))
    archive = shutil.make_archive(str(tmp_path / "voice"), "zip", path.parent)
    with pytest.raises(ValueError, match=f"voice.zip: config.yaml.*{message}"):
        load_vocoder(archive)


def test_damaged_weights_in_a_zip_file(saved: tuple[FloWaveNetVocoder, Path], tmp_path: Path) -> None:
    _, path = saved
    path.write_bytes(path.read_bytes()[:-300])
    archive = shutil.make_archive(str(tmp_path / "voice"), "zip", path.parent)
    for read in (load_vocoder, read_state_dict):
        with pytest.raises(ValueError, match="voice.zip: model.pth is broken"):
            read(archive)


class Gain(AbsVocoder):
    """A vocoder of a third party."""

    def __init__(self, fs: int, hop_length: int, n_mels: int, gain: float = 1.0) -> None:
        super().__init__(fs, hop_length, n_mels)
        self.gain = torch.nn.Parameter(torch.tensor(gain))

    def loss(self, wav: Tensor, feats: Tensor, wav_lengths: Tensor, feats_lengths: Tensor) -> tuple:
        """Compute the mean square."""
        loss = (self.gain * wav).square().mean()
        return loss, dict(loss=loss.detach()), loss.new_tensor(1.0)

    def inference(self, feats: Tensor, **options: object) -> Tensor:
        """Return a constant."""
        return self.gain * feats.new_ones(len(feats) * self.hop_length)


def test_a_third_party_registers_its_vocoder(tmp_path: Path) -> None:
    register_vocoder("gain", Gain)
    try:
        register_vocoder("gain", Gain)  # again is fine
        with pytest.raises(ValueError, match="'gain' is Gain already, not FloWaveNetVocoder"):
            register_vocoder("gain", FloWaveNetVocoder)
        config = {**CONFIG, "vocoder": "gain", "vocoder_conf": dict(gain=0.5)}
        made = build_vocoder("gain", fs=16000, hop_length=12, n_mels=5, conf=dict(gain=0.5))
        loaded = load_vocoder(save_vocoder(made, config, tmp_path))
        assert torch.equal(loaded(torch.zeros(2, 5)), torch.full((24,), 0.5))
        with pytest.raises(TypeError, match="Gain has no likelihood"):
            loaded.log_likelihood(torch.zeros(24), torch.zeros(2, 5))
    finally:
        VOCODERS.pop("gain")
    with pytest.raises(ValueError, match="lower case"):
        register_vocoder("Gain", Gain)
    with pytest.raises(TypeError, match="not a subclass"):
        register_vocoder("gain", torch.nn.Linear)
