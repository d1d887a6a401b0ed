"""All ways of making sound refuse features that no sound has, and don't return what is no sound."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import spoken
import tiny_corpus
from flowavenet_plugin import load_vocoder
from flowavenet_plugin.bin import make_mel_inversion, vocoder_inference
from flowavenet_plugin.data.scp import ArkWriter
from flowavenet_plugin.tasks.text2speech_vocoder import Text2SpeechVocoder
from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder
from flowavenet_plugin.vocoder.level import check_level
from flowavenet_plugin.vocoder.loading import save_vocoder
from flowavenet_plugin.vocoder.mel_inversion_vocoder import MelInversionVocoder
from tiny_voice import make_voice

N_MELS, HOP = tiny_corpus.N_MELS, tiny_corpus.HOP
CONF = tiny_corpus.FEATS_CONF


@pytest.fixture(scope="module")
def speech() -> Tensor:
    """Features of something like speech, shape (frames, 6)."""
    return torch.from_numpy(spoken.features("fbank", **CONF)[2])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, speech: Tensor) -> dict[str, Path]:
    """A voice that knows its features' statistics, and mel inversion."""
    folder = tmp_path_factory.mktemp("voices")
    voice = load_vocoder(make_voice(folder))
    voice.set_feats_stats(speech.mean(0), speech.std(0))
    config = (folder / "config.yaml").read_text()
    model = save_vocoder(voice, {}, folder)
    (folder / "config.yaml").write_text(config)
    command = ["--config", str(folder / "config.yaml"), "--outpath", str(folder / "mel.zip"), "--iterations", "2"]
    make_mel_inversion.main(command)
    return {"voice": model, "mel_inversion": folder / "mel.zip"}


@pytest.fixture(params=["voice", "refined", "mel_inversion"])
def vocoder(request: pytest.FixtureRequest, files: dict[str, Path]) -> AbsVocoder:
    if request.param == "refined":
        return load_vocoder(files["voice"], refine=1)
    return load_vocoder(files[request.param])


def pieces(vocoder: AbsVocoder, feats: Tensor) -> Tensor:
    return torch.cat(list(vocoder.stream(feats.split(50), seed=1)))


#: Each way to make sound.
WAYS: dict[str, Callable[[AbsVocoder, Tensor], object]] = {
    "call": lambda vocoder, feats: vocoder(feats),
    "inference": lambda vocoder, feats: vocoder.inference(feats, seed=1),
    "array": lambda vocoder, feats: vocoder.inference(feats.numpy(), noise=torch.zeros(len(feats) * HOP)),
    "batch": lambda vocoder, feats: vocoder.inference_batch([feats, feats[:7]]),
    "stream": pieces,
    "Text2Speech": lambda vocoder, feats: Text2SpeechVocoder(vocoder)(feats),
}


def normalised(speech: Tensor) -> Tensor:
    return (speech - speech.mean(0)) / speech.std(0).clamp(min=1e-2)


@pytest.mark.parametrize("way", WAYS)
def test_all_ways_refuse_what_decoding_refuses(vocoder: AbsVocoder, speech: Tensor, way: str) -> None:
    WAYS[way](vocoder, speech)
    with pytest.raises(ValueError, match="look normalised .*denorm/feats.scp"):
        WAYS[way](vocoder, normalised(speech))
    for value in (-30.0, -100.0, -1000.0):
        message = rf"go from {value:.2f} to {value:.2f}, but what is extracted .*-10 to inf"
        with pytest.raises(ValueError, match=message):
            WAYS[way](vocoder, torch.full((10, N_MELS), value))
    for shape, shown in (((N_MELS, 9), r"\(6, 9\) \(transposed\?\)"), ((9, 10), r"\(9, 10\)$")):
        with pytest.raises(ValueError, match=rf"expected features of shape \(frames, 6\), got {shown}"):
            WAYS[way](vocoder, torch.zeros(shape))


def test_an_argument_turns_it_off(files: dict[str, Path], speech: Tensor) -> None:
    for name, path in files.items():
        vocoder = load_vocoder(path, check=False)
        assert len(vocoder.inference(normalised(speech), seed=1)) == len(speech) * HOP, name
        vocoder.checks = True
        with pytest.raises(ValueError, match="look normalised"):
            vocoder.inference(normalised(speech), seed=1)
    refined = load_vocoder(files["voice"], refine=1, check=False)
    assert refined.inference(normalised(speech)).shape and not refined.vocoder.checks


def test_what_is_no_sound_is_not_returned(files: dict[str, Path], speech: Tensor) -> None:
    vocoder = load_vocoder(files["voice"])
    vocoder.flow.blocks[0].steps[0].actnorm.scale.data.fill_(1e-3)
    for way in ("inference", "batch", "stream", "Text2Speech"):
        with pytest.raises(ValueError, match=r"the sound has a peak of [0-9.]+, but amplitudes lie in \[-1, 1\]"):
            vocoder.checks = True
            WAYS[way](vocoder, speech)


def test_integers_are_no_amplitudes_in_likelihoods_either(files: dict[str, Path], speech: Tensor) -> None:
    vocoder = load_vocoder(files["voice"])
    wav = spoken.clip(tiny_corpus.FS)[0][: len(speech) * HOP]
    vocoder.log_likelihood(wav, speech)
    with pytest.raises(ValueError, match=r"a peak of 12345, .*16-bit samples are divided by 32768"):
        vocoder.log_likelihood(np.round(wav / abs(wav).max() * 12345), speech)
    with pytest.raises(ValueError, match="look normalised"):
        vocoder.log_likelihood(wav, normalised(speech))


@pytest.mark.parametrize("name", ["voice", "mel_inversion"])
def test_decoding_names_the_utterance(files: dict[str, Path], speech: Tensor, tmp_path: Path, name: str) -> None:
    command = ["--model_file", str(files[name]), "--output_dir", str(tmp_path / "out")]
    for number, (bad, message) in enumerate(
        [
            (normalised(speech), "utterance bad: the features look normalised"),
            (speech.T.contiguous(), r"utterance bad: expected features of shape \(frames, 6\), got .*\(transposed"),
            (torch.zeros(9, 10), r"utterance bad: expected features of shape \(frames, 6\), got \(9, 10\)"),
        ]
    ):
        scp = tmp_path / f"{number}.scp"
        with ArkWriter(scp.with_suffix(".ark"), scp) as writer:
            writer["good"], writer["bad"] = speech.numpy(), bad.numpy()
        for options in ([], ["--batch_size", "2"]):
            with pytest.raises(SystemExit, match=message):
                vocoder_inference.main([*command, "--scp", str(scp), *options])
            assert not (tmp_path / "out/wav/bad.wav").exists()


@pytest.mark.parametrize(
    "kind, conf",
    [("fbank", {}), ("fbank", dict(log_base=None)), ("fbank", dict(n_fft=2048, hop_length=300)), ("original", {})],
)
def test_a_class_without_statistics_tells_speech_from_noise(kind: str, conf: dict) -> None:
    settings, _, feats = spoken.features(kind, fs=22050, **conf)
    made = MelInversionVocoder(22050, settings["hop_length"], 80)
    made.set_features(kind, settings)
    feats = torch.from_numpy(feats)
    assert check_level(made, feats) is None and check_level(made, feats[:1]) is None
    with pytest.raises(ValueError, match="normalised"):
        check_level(made, normalised(feats))
