"""Pulses as the mean of the noise: where a recording has them, and how synthesis makes them of a mel-spectrogram."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder
from flowavenet_plugin.vocoder.inversion.settings import feature_settings
from flowavenet_plugin.vocoder.noise import NoiseSource, first_phase
from flowavenet_plugin.vocoder.source import Latent, PulseSource, at
from flowavenet_plugin.vocoder.source.closures import closures
from flowavenet_plugin.vocoder.source.pulses import SHARE
from flowavenet_plugin.vocoder.source.session import SourceSession
from pulse_voice import CONF, SIZES, speech_of, voice


def whole_source(source: PulseSource, feats: Tensor, phase: Tensor) -> Latent:
    """Make the source of features (1, frames, n_mels) alone."""
    return source.of_pitch(source.read(feats, [feats.shape[1]]), phase)[0]


@pytest.fixture(scope="module")
def speech() -> tuple[Tensor, Tensor, np.ndarray]:
    """Return half a second like speech, (1, samples), its features (1, frames, n_mels), and the pitch of samples."""
    return speech_of(220.0, 260.0)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("error", [0.0, 0.004, -0.004])
def test_pulses_are_found_where_they_are_though_the_pitch_is_a_little_off(sign: float, error: float) -> None:
    fs, hop, frames = 16000, 128, 60
    hertz = torch.linspace(140, 210, frames * hop, dtype=torch.float64)[None]
    true = 0.3 + (hertz / fs).cumsum(dim=1)
    pulses = (torch.diff(true.floor(), dim=1, prepend=true[:, :1].floor()) > 0).float()
    residual = sign * 8 * pulses + torch.randn(pulses.shape, generator=torch.Generator().manual_seed(0))
    guessed = ((1 + error) * hertz / fs).cumsum(dim=1)
    voiced = torch.ones(1, frames)
    found, way = closures(residual, guessed, voiced, hop, fs)
    assert way.item() == sign
    inner = slice(4 * hop, -4 * hop)  # windows are whole there
    off = (found - true)[:, inner]
    off = (off - off.round()).abs()
    assert off.quantile(0.9) < 0.03 and off.max() < 0.08  # periods; 0.016 are told apart
    off = (guessed - true)[:, inner]
    assert (off - off.round()).abs().max() > 0.1  # which the pitch alone doesn't give


def test_a_recordings_own_pulses_agree_with_its_residual(speech: tuple) -> None:
    wav, feats, pitch = speech
    vocoder = voice()
    source = vocoder.tables().source
    frames = [feats.shape[1]]
    with torch.no_grad():
        residual, _ = vocoder.prediction(wav, feats, vocoder.normalize(feats))
        latent, sign = source.of_recording(wav, residual, frames)
        flipped, other = source.of_recording(-wav, -residual, frames)
    assert sign.item() == -other.item()
    for one, two in zip(latent, flipped, strict=True):
        assert torch.equal(one, two)  # a recording that is turned over has the same source
    voiced = latent.mean[0].abs() > 1e-3
    assert voiced[: int(0.6 * len(pitch))].float().mean() > 0.8
    assert voiced[int(0.72 * len(pitch)) :].float().mean() < 0.2  # noise, and the pause
    agreement = torch.nn.functional.cosine_similarity((sign * residual)[:, voiced], latent.mean[:, voiced]).item()
    apart = torch.roll(latent.mean, 33, dims=1)  # half a period
    elsewhere = torch.nn.functional.cosine_similarity((sign * residual)[:, voiced], apart[:, voiced]).item()
    assert agreement > 0.3 and agreement > 4 * abs(elsewhere)


def test_pulses_and_noise_have_unit_power_together(speech: tuple) -> None:
    feats = speech[1]
    source = PulseSource(feature_settings("fbank", CONF))
    latent = whole_source(source, feats, torch.zeros(1, 1, dtype=torch.float64))
    noise = torch.randn(latent.mean.shape, generator=torch.Generator().manual_seed(0))
    assert at(latent, noise, 1.0).square().mean() == pytest.approx(1.0, abs=0.1)
    silent = latent.mean[0] == 0
    assert torch.equal(latent.deviation[0, silent], torch.ones(int(silent.sum())))
    assert latent.deviation.min() == pytest.approx(math.sqrt(1 - SHARE**2), rel=1e-4)


def test_temperature_scales_the_noise_alone() -> None:
    latent = Latent(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.5, 1.0]]))
    noise = torch.tensor([[1.0, -1.0]])
    assert at(latent, noise, 0.0).tolist() == [[2.0, 0.0]]
    assert at(latent, noise, 0.5).tolist() == [[2.25, -0.5]]
    assert at(None, noise, 0.5).tolist() == [[0.5, -0.5]]


def test_noise_that_is_unvoiced_is_the_noise_itself() -> None:
    feats = torch.full((1, 20, 40), -10.0)  # silence
    source = PulseSource(feature_settings("fbank", CONF))
    latent = whole_source(source, feats, torch.zeros(1, 1, dtype=torch.float64))
    assert not latent.mean.any() and (latent.deviation == 1).all()


@torch.no_grad()
def test_alone_in_batches_and_from_given_noise_it_is_the_same_sound(speech: tuple) -> None:
    feats, vocoder = speech[1][0], voice()
    alone = vocoder.inference(feats, seed=3)
    many = vocoder.inference_batch([feats, feats[:17]], seeds=[3, 4])
    assert torch.allclose(many[0], alone, atol=1e-5) and many[1].shape == (17 * 128,)
    assert torch.allclose(many[1], vocoder.inference(feats[:17], seed=4), atol=1e-5)
    assert not torch.allclose(alone, vocoder.inference(feats, seed=5), atol=1e-2)
    source = vocoder.tables().source
    noise = NoiseSource(3)
    phase = first_phase(noise)
    latent = whole_source(source, feats[None], torch.full((1, 1), phase, dtype=torch.float64))
    drawn = at(latent, noise.draw(len(feats) * 128)[None], vocoder.temperature)
    cond = vocoder.normalize(feats)[None]
    wav = vocoder.prediction.inverse(vocoder.flow.inverse(drawn[:, None], cond.mT)[:, 0], feats[None], cond)[0]
    assert torch.allclose(wav, alone, atol=1e-4)
    plain = vocoder.inference(feats, noise=torch.zeros(len(feats) * 128))
    assert plain.abs().max() > 1e-3  # pulses alone are heard


@torch.no_grad()
@pytest.mark.parametrize("pieces", [[37], [5, 0, 1, 31], [1] * 37])
def test_a_short_stream_is_the_whole_and_a_long_one_reads_the_pitch_in_context(speech: tuple, pieces: list) -> None:
    feats, vocoder = speech[1][0, :37], voice()
    assert not vocoder.exact_stream and vocoder.look_ahead > voice(source="noise").look_ahead
    streamed = torch.cat(list(vocoder.stream(feats.split(pieces), seed=3, chunk_frames=40)))
    assert torch.allclose(streamed, vocoder.inference(feats, seed=3), atol=1e-5)


def test_streams_and_likelihoods_of_pulses_dont_follow_the_callers_settings(speech: tuple) -> None:
    wav, feats, _ = speech
    vocoder = voice()
    with torch.no_grad():
        expected = torch.cat(list(vocoder.stream(feats[0].split(11), seed=3, chunk_frames=16)))
        with torch.autocast("cpu", torch.bfloat16):
            got = torch.cat(list(vocoder.stream(feats[0].split(11), seed=3, chunk_frames=16)))
    # WaveNets run in bfloat16; pulses elsewhere would differ by their height.
    assert (got - expected).abs().max() < 0.1 * expected.abs().max()
    learning = feats[0].clone().requires_grad_()
    assert torch.equal(torch.cat(list(vocoder.stream([learning], seed=3, chunk_frames=16))), expected)
    half = copy.deepcopy(vocoder).to(torch.bfloat16)
    found = half.log_likelihood(wav[0], feats[0]).float()
    assert abs(found - vocoder.log_likelihood(wav[0], feats[0])) < 0.2


def test_a_session_gives_every_frame_once_in_order_and_phases_go_on(speech: tuple) -> None:
    feats = speech[1][0].repeat(3, 1)
    source = PulseSource(feature_settings("fbank", CONF))
    session, made, latents = SourceSession(source, 0.25), [], []
    for start in range(0, len(feats), 16):
        piece = feats[start : start + 16]
        frames, latent = session.push(piece, final=start + 16 >= len(feats))
        assert latent.mean.shape == latent.deviation.shape == (1, len(frames) * 128)
        made.append(frames)
        latents.append(latent.mean[0])
    assert torch.equal(torch.cat(made), feats)
    mean, hop = torch.cat(latents), 128
    whole = whole_source(source, feats[None], torch.full((1, 1), 0.25, dtype=torch.float64)).mean[0]
    first = slice(0, 16 * hop)  # read with 24 frames after it, as in the whole
    assert torch.nn.functional.cosine_similarity(mean[first], whole[first], dim=0) > 0.95
    # Between pieces no pulse is doubled or lost: distances are periods of voices.
    peaks = torch.nonzero(mean > 4).flatten()
    gaps = torch.diff(peaks)[torch.diff(peaks) > 1]
    assert gaps.min() > 16000 / 500 - 2


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(source="hum"), "source must be one of noise, pulses, not 'hum'"),
        (dict(prediction_order=0), "source=pulses needs a linear prediction"),
        (dict(blur=1.5), "blur must be a number from 0 to 1, not 1.5"),
        (dict(sampled_weight=-1.0), "sampled_weight must be a number from 0, not -1.0"),
        (dict(likelihood_weight=0.0), "all 0, and no network reads features"),
        (dict(discriminator_channels=3), "discriminator_channels must be an even number from 2, not 3"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        voice(**settings)


def test_features_that_give_no_pitch_are_refused() -> None:
    made = FloWaveNetVocoder(16000, 128, 40, **SIZES, source="pulses", prediction_order=16)
    with pytest.raises(ValueError, match="windows of 200 samples must overlap"):
        made.set_features("fbank", CONF | dict(win_length=200))
    FloWaveNetVocoder(16000, 128, 40, **SIZES).set_features("fbank", CONF | dict(win_length=200))  # no pitch is read


@torch.no_grad()
def test_the_likelihood_is_that_of_the_paper_and_doesnt_know_which_way_up(speech: tuple) -> None:
    wav, feats, _ = speech
    vocoder = voice()
    found = vocoder.log_likelihood(wav[0], feats[0])
    assert torch.allclose(found, vocoder.log_likelihood(-wav[0], feats[0]), atol=1e-5)
    plain = voice(source="noise")
    plain.load_state_dict(vocoder.state_dict())
    ways = [plain.log_likelihood(sign * wav[0], feats[0]) for sign in (1, -1)]
    assert min(abs(found - way) for way in ways) < 1e-5
