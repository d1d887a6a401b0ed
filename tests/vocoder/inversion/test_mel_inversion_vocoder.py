"""The vocoder without weights, and refinement after any vocoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import spoken
import tiny_corpus
from flowavenet_plugin import load_vocoder
from flowavenet_plugin.bin.make_mel_inversion import main as make_mel_inversion
from flowavenet_plugin.data.features import build_feats_extract
from flowavenet_plugin.evaluation.griffin_lim import GriffinLim
from flowavenet_plugin.vocoder.inversion.session import CONTEXT
from flowavenet_plugin.vocoder.mel_inversion_vocoder import MelInversionVocoder
from flowavenet_plugin.vocoder.refined_vocoder import RefinedVocoder
from tiny_voice import make_voice

CONF = dict(fs=16000, n_fft=512, hop_length=128, n_mels=40, fmin=60, fmax=7600)
EACH = [
    ("fbank", CONF),
    ("fbank", dict(CONF, hop_length=200, win_length=480, log_base=None, htk=True)),
    ("fbank", dict(CONF, window=None, win_length=480)),
    ("fbank", dict(CONF, normalized=True, window="hamming")),
    ("original", dict(CONF, fs=22050, n_fft=1024, hop_length=256)),
]


def vocoder(kind: str = "fbank", conf: dict = CONF, **options: object) -> MelInversionVocoder:
    """Return the vocoder for some features."""
    made = MelInversionVocoder(conf["fs"], conf["hop_length"], conf["n_mels"], **options)
    made.set_features(kind, conf)
    return made


def mel_error(kind: str, conf: dict, wav: Tensor, feats: np.ndarray) -> float:
    """Mean absolute difference of a sound's own features, in dB of amplitude, by the extractor itself."""
    again, _ = build_feats_extract(kind, conf)(wav[None])
    decibel = 100 if kind == "original" else 20 * (np.log10(np.e) if conf.get("log_base", 10) is None else 1)
    return float(decibel * np.abs(again[0, : len(feats)].numpy() - feats)[:-4].mean())  # the end is mirrored elsewhere


@pytest.mark.parametrize("kind, conf", EACH)
def test_it_beats_griffin_lim_on_every_feature(kind: str, conf: dict) -> None:
    settings, _, feats = spoken.features(kind, **conf)
    made = vocoder(kind, settings)
    wav = made.inference(feats, seed=1)
    assert wav.shape == (len(feats) * conf["hop_length"],) and torch.isfinite(wav).all()
    own = mel_error(kind, conf, wav, feats)
    other = mel_error(kind, conf, torch.from_numpy(GriffinLim(kind, settings)(feats)), feats)
    share = 0.7 if settings["window"] is None else 0.5  # a rectangle leaks
    assert own < 1.0 and own < share * other, (own, other)
    fewer = mel_error(kind, conf, vocoder(kind, settings, iterations=4).inference(feats, seed=1), feats)
    assert own < 0.6 * fewer


def test_seeds_noise_and_batches() -> None:
    _, _, feats = spoken.features("fbank", **CONF)
    made = vocoder(iterations=3)
    first = made.inference(feats, seed=1)
    assert first.equal(made.inference(torch.from_numpy(feats), seed=1))
    assert not first.allclose(made.inference(feats, seed=2), atol=1e-3)
    torch.manual_seed(0)
    drawn = made(torch.from_numpy(feats))
    torch.manual_seed(0)
    assert drawn.equal(made.inference(feats))
    noise = torch.randn(len(feats) * 128)
    assert made.inference(feats, noise=noise).equal(made.inference(feats, noise=noise.numpy()))
    assert not made.inference(feats, noise=noise, temperature=0.3).equal(made.inference(feats, noise=noise))
    both = made.inference_batch([feats, feats[:7]], seeds=[1, (3, 4)])
    torch.testing.assert_close(both[0], first, rtol=0, atol=1e-4)
    torch.testing.assert_close(both[1], made.inference(feats[:7], seed=(3, 4)), rtol=0, atol=1e-4)
    assert made.inference_batch([]) == [] and made.double().inference(feats, seed=1).dtype == torch.float64


@pytest.mark.parametrize("frames", [1, 2])
def test_short_utterances(frames: int) -> None:
    wav = vocoder(iterations=2).inference(torch.full((frames, 40), -1.0), seed=0)
    assert wav.shape == (frames * 128,) and torch.isfinite(wav).all()


def test_wrong_input_is_refused_in_a_sentence() -> None:
    made, feats = vocoder(iterations=1), torch.full((3, 40), -3.0)
    for message, call in (
        ("seed or noise, not both", lambda: made.inference(feats, seed=1, noise=torch.zeros(384))),
        (r"3 frames of 128 samples need \(384,\)", lambda: made.inference(feats, noise=torch.zeros(5))),
        (r"shape \(frames, 40\), got \(3, 41\)", lambda: made.inference(torch.zeros(3, 41))),
        ("temperature must be a number from 0, not -1", lambda: made.inference(feats, temperature=-1.0)),
        ("1 seeds for 2 utterances", lambda: made.inference_batch([feats, feats], seeds=[1])),
        ("chunk_frames must be at least 1, not 0", lambda: list(made.stream([feats], chunk_frames=0))),
        ("no frame of features has arrived", lambda: list(made.stream([feats[:0]]))),
        ("whole number from 0, not -1", lambda: vocoder(iterations=-1)),
        ("whole number from 0, not 1.5", lambda: vocoder(iterations=1.5)),
        ("nothing to train", lambda: made.loss(feats, feats, None, None)),
        ("overlap by half", lambda: vocoder(conf=dict(CONF, hop_length=300))),
    ):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("chunk", [9, 40])
def test_a_stream_has_the_same_mel_and_waits_no_longer_than_it_says(chunk: int) -> None:
    _, _, feats = spoken.features("fbank", **CONF)
    feats = np.concatenate([feats, feats[::-1], feats])
    made, arrived = vocoder(iterations=8), []

    def pieces() -> object:
        for start in range(0, len(feats), 3):
            arrived.append(start + 3)
            yield torch.from_numpy(np.ascontiguousarray(feats[start : start + 3]))

    heard, waited = [], []
    for wav in made.stream(pieces(), seed=5, chunk_frames=chunk):
        waited.append(min(arrived[-1], len(feats)) - sum(map(len, heard)) // 128)
        heard.append(wav)
    wav = torch.cat(heard)
    assert wav.shape == (len(feats) * 128,)
    assert max(waited[:-1]) <= made.look_ahead + chunk + 4
    whole = made.inference(feats, seed=5)
    streamed, at_once = (mel_error("fbank", CONF, sound, feats) for sound in (wav, whole))
    assert streamed < 1.1 * at_once + 0.1, (streamed, at_once)
    # The first frames wait for nothing before them, and see as far as they have to.
    size = 8 * 128
    torch.testing.assert_close(wav[:size], whole[:size], rtol=0, atol=0.05 * float(whole.abs().max()))


def test_memory_and_state() -> None:
    made = vocoder(iterations=1)
    made.inference(torch.full((3, 40), -3.0))
    assert set(made.state_dict()) == {"feats_mean", "feats_std"} and not list(made.parameters())


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mel_inversion.zip for the tiny corpus."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "feats_extract.yaml").write_text(
        "feats_extract: fbank\n"
        "feats_extract_conf: {fs: 8000, n_fft: 128, hop_length: 32, n_mels: 6, fmin: 0, fmax: 4000}\n"
    )
    command = ["--config", str(folder / "feats_extract.yaml"), "--outpath", str(folder / "mel_inversion.zip")]
    make_mel_inversion([*command, "--iterations", "3"])
    return folder / "mel_inversion.zip"


def test_the_command_writes_what_loads(archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loaded = load_vocoder(archive)
    assert isinstance(loaded, MelInversionVocoder) and loaded.iterations == 3 and loaded.fs == 8000
    assert loaded.feats_extract_conf["log_base"] == 10.0  # all settings are told
    assert loaded(torch.full((4, 6), -3.0)).shape == (128,)
    (tmp_path / "config.yaml").write_text("feats_extract: fbank\nfeats_extract_conf: {hop_length: 900}\n")
    for options, message in (
        (["--config", str(tmp_path / "config.yaml")], f"{tmp_path}/config.yaml: mel inversion: windows of 1024"),
        (["--config", str(tmp_path / "none.yaml")], "none.yaml"),
    ):
        with pytest.raises(SystemExit) as stop:
            make_mel_inversion([*options, "--outpath", str(tmp_path / "x.zip")])
        assert message in str(stop.value) and not (tmp_path / "x.zip").exists()
    assert not list(tmp_path.glob(".make*"))


def test_any_vocoder_can_be_refined(tmp_path: Path) -> None:
    model_file, conf = make_voice(tmp_path), tiny_corpus.FEATS_CONF
    _, _, feats = spoken.features("fbank", **conf)
    plain, refined = load_vocoder(model_file), load_vocoder(model_file, refine=16)
    assert type(load_vocoder(model_file, refine=0)) is type(plain) and isinstance(refined, RefinedVocoder)
    before, after = (mel_error("fbank", conf, made.inference(feats, seed=1), feats) for made in (plain, refined))
    assert after < 0.2 * before, (before, after)
    assert refined.inference(feats, seed=1).equal(refined.inference(feats, seed=1))
    many = refined.inference_batch([feats, feats[:9]], seeds=[1, 2])
    torch.testing.assert_close(many[1], refined.inference(feats[:9], seed=2), rtol=0, atol=1e-4)
    wav = torch.cat(list(refined.stream(torch.from_numpy(feats).split(7), seed=1, chunk_frames=8)))
    assert wav.shape == (len(feats) * tiny_corpus.HOP,)
    assert mel_error("fbank", conf, wav, feats) < 1.1 * after + 0.3
    assert refined.look_ahead == plain.look_ahead + CONTEXT and refined.flow.column == plain.flow.column
    clip = torch.from_numpy(spoken.clip(8000)[0])[: (len(feats) - 1) * tiny_corpus.HOP]
    assert refined.log_likelihood(clip, feats).equal(plain.log_likelihood(clip, feats))
    refined.for_inference()
    assert refined.inference(feats, seed=1).shape == wav.shape


def test_a_voice_can_be_refined_by_default(tmp_path: Path) -> None:
    model_file = make_voice(tmp_path)
    config = model_file.with_name("config.yaml")
    config.write_text(config.read_text() + "refine: 2\n")
    assert load_vocoder(model_file).refine == 2 and not isinstance(load_vocoder(model_file, refine=0), RefinedVocoder)
    config.write_text(config.read_text().replace("refine: 2", "refine: much"))
    with pytest.raises(
        ValueError, match="config.yaml: refine: the number of iterations must be a whole number from 0, not 'much'"
    ):
        load_vocoder(model_file)
