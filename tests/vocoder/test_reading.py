"""A network that reads features: what it changes, what it says of the pitch, how it learns, and where it is heard."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

import pulse_voice
from flowavenet_plugin.data.features import build_feats_extract, extract
from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder
from flowavenet_plugin.vocoder.inversion.pitch import HIGHEST, LOWEST, Pitch, pitches_looked_for
from flowavenet_plugin.vocoder.inversion.pitch_path import best_path, filled
from flowavenet_plugin.vocoder.inversion.settings import feature_settings
from flowavenet_plugin.vocoder.reading import MelReader, Reading
from flowavenet_plugin.vocoder.refined_vocoder import RefinedVocoder
from flowavenet_plugin.vocoder.training.blur import smooth
from flowavenet_plugin.vocoder.training.reading import PITCH, reading_loss
from pulse_voice import CONF, speech_of

READER = dict(reader_channels=8, reader_layers=2)


def voice(moved: bool = True, **settings: object) -> FloWaveNetVocoder:
    """Return a small vocoder with a reader."""
    return pulse_voice.voice(moved, **(READER | settings))


@pytest.fixture(scope="module")
def speech() -> tuple[Tensor, Tensor, np.ndarray]:
    """Return half a second like speech, (1, samples), its features (1, frames, n_mels), and the pitch of samples."""
    return speech_of(180.0, 240.0)


@pytest.mark.parametrize("seed", range(20))
def test_the_best_path_is_the_best_of_all(seed: int) -> None:
    rng = np.random.default_rng(seed)
    voice, none, change = rng.normal(size=(5, 3)), rng.normal(size=5), rng.random((3, 3))
    np.fill_diagonal(change, 0)
    change += change.T

    def value(path: tuple[int, ...]) -> float:
        total = 0.0
        for frame, now in enumerate(path):
            total += none[frame] if now < 0 else voice[frame, now]
            if frame and (path[frame - 1] < 0) != (now < 0):
                total -= 0.7
            elif frame and now >= 0:
                total -= change[path[frame - 1], now]
        return total

    best = max(itertools.product((-1, 0, 1, 2), repeat=5), key=value)
    assert tuple(best_path(voice, none, change, 0.7)) == best


def test_frames_without_a_pitch_take_those_of_their_neighbours() -> None:
    hertz, voiced = filled(np.array([-1, 4, -1, -1, 7]), np.array([9.0, 100.0, 9.0, 9.0, 160.0]))
    assert hertz.tolist() == [100.0, 100.0, 120.0, 140.0, 160.0]
    assert voiced.tolist() == [False, True, False, False, True]


@torch.no_grad()
def test_before_training_features_stay_as_they_are(speech: tuple) -> None:
    wav, feats, _ = speech
    vocoder, plain = voice(moved=False), voice(moved=False, reader_channels=0)
    assert plain.reader is None and plain.aims() is None
    assert torch.equal(plain.aim(feats[0]), feats[0])
    assert torch.equal(vocoder.aim(feats[0]), feats[0])
    assert vocoder.log_likelihood(wav[0], feats[0]) == plain.log_likelihood(wav[0], feats[0])
    missing, unexpected = plain.load_state_dict(vocoder.state_dict(), strict=False)
    assert missing == [] and all(name.startswith("reader.") for name in unexpected)


@torch.no_grad()
def test_a_frame_depends_on_as_many_frames_as_it_says_and_not_on_those_beyond_an_item() -> None:
    reader = voice().reader
    cond = torch.randn(1, 40, 40, generator=torch.Generator().manual_seed(0))
    other = cond.clone()
    other[:, 20] += 1
    for ours, theirs in zip(reader(cond, [40]), reader(other, [40]), strict=True):
        changed = torch.nonzero((ours - theirs).abs().amax(dim=(0, 2)) > 0).flatten()
        assert changed.min() == 20 - reader.reach and changed.max() == 20 + reader.reach
    padded = torch.cat([cond, other])
    padded[1, 25:] = 1e3
    for alone, both in zip(reader(other[:, :25], [25]), reader(padded, [40, 25]), strict=True):
        torch.testing.assert_close(both[1, :25], alone[0], rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("pieces", [[60], [5, 0, 1, 54], [1] * 60])
def test_features_are_read_the_same_while_they_arrive(speech: tuple, pieces: list[int]) -> None:
    feats, vocoder = speech[1][0, :60], voice()
    session, parts = vocoder.aims(), []
    for number, piece in enumerate(feats.split(pieces)):
        parts.append(session.push(piece, final=number == len(pieces) - 1))
    whole = vocoder.read(feats[None], [60])
    torch.testing.assert_close(torch.cat([part.feats for part in parts]), whole.feats[0], rtol=0, atol=1e-5)
    said = torch.cat([part.pitch for part in parts if len(part.feats)])
    torch.testing.assert_close(said, whole.pitch[0], rtol=0, atol=1e-5)
    assert whole.pitch.exp().sum(dim=2).allclose(torch.ones(1, 60), atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("source", ["noise", "pulses"])
@pytest.mark.parametrize("pieces", [[60], [5, 0, 1, 54], [1] * 60])
def test_a_stream_and_a_batch_are_the_whole(speech: tuple, source: str, pieces: list[int]) -> None:
    feats, vocoder = speech[1][0, :60], voice(source=source)
    alone = vocoder.inference(feats, seed=3)
    chunk = 7 if source == "noise" else 64  # pulses are exact where all of it is one chunk
    streamed = torch.cat(list(vocoder.stream(feats.split(pieces), seed=3, chunk_frames=chunk)))
    torch.testing.assert_close(streamed, alone, rtol=0, atol=1e-4)
    many = vocoder.inference_batch([feats, feats[:31]], seeds=[3, 4])
    torch.testing.assert_close(many[0], alone, rtol=0, atol=1e-4)
    torch.testing.assert_close(many[1], vocoder.inference(feats[:31], seed=4), rtol=0, atol=1e-4)
    plain = voice(source=source, reader_channels=0)
    plain.load_state_dict(vocoder.state_dict(), strict=False)
    assert (plain.inference(feats, seed=3) - alone).abs().max() > 1e-3  # it is heard
    assert vocoder.look_ahead >= plain.look_ahead + vocoder.reader.reach


@torch.no_grad()
def test_sound_is_heard_when_its_look_ahead_has_arrived(speech: tuple) -> None:
    feats, vocoder = speech[1][0].repeat(3, 1), voice()
    arrived, heard = 0, 0

    def pieces() -> object:
        nonlocal arrived
        for piece in feats.split(1):
            arrived += 1
            yield piece

    for wav in vocoder.stream(pieces(), seed=0, chunk_frames=1):
        heard += len(wav)
        if arrived < len(feats):
            assert arrived - heard / 128 <= vocoder.look_ahead + 2
    assert heard == 128 * len(feats)


def learnt(speech: tuple, steps: int = 250) -> FloWaveNetVocoder:
    """Return a vocoder whose reader has learnt a clip by heart."""
    wav, feats, _ = speech
    vocoder = voice(moved=False, likelihood_weight=0.0, reader_channels=32)
    vocoder.set_feats_stats(feats[0].mean(dim=0), feats[0].std(dim=0))
    vocoder.for_training(lambda channels: None)
    vocoder.train()
    optimiser = torch.optim.AdamW(vocoder.reader.parameters(), 3e-3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(steps):
            optimiser.zero_grad()
            vocoder.loss(wav.repeat(4, 1), feats.repeat(4, 1, 1), None, None)[0].backward()
            optimiser.step()
    return vocoder.eval()


@pytest.fixture(scope="module")
def reader(speech: tuple) -> FloWaveNetVocoder:
    """Return such a vocoder."""
    return learnt(speech)


@torch.no_grad()
def test_it_learns_to_sharpen_features_and_their_pitch(speech: tuple, reader: FloWaveNetVocoder) -> None:
    wav, feats, pitch = speech
    soft = smooth(smooth(feats.mT).mT)
    found = reader.aim(soft[0])
    assert (found - feats[0]).abs().mean() < 0.6 * (soft - feats).abs().mean()
    assert (reader.aim(feats[0]) - feats[0]).abs().mean() < 0.5 * (soft - feats).abs().mean()
    said = reader.pitch(soft[0])
    right = torch.from_numpy(pitch[::128])[: len(soft[0])]
    both = (said.voiced > 0.5) & (right > 0)
    assert both.sum() > 0.85 * (right > 0).sum() and ((said.voiced > 0.5) & (right == 0)).sum() <= 4
    assert ((said.hertz / right).log()[both].abs() < 0.03).float().mean() > 0.9
    assert said.hertz.min() >= LOWEST and said.hertz.max() <= HIGHEST


@torch.no_grad()
def test_refined_sound_has_the_features_that_were_read(speech: tuple, reader: FloWaveNetVocoder) -> None:
    feats = smooth(smooth(speech[1].mT).mT)[0]
    refined = RefinedVocoder(reader, 16)
    extractor = build_feats_extract("fbank", CONF)

    def distance(wav: Tensor, wanted: Tensor) -> float:
        made = torch.from_numpy(extract(extractor, wav.numpy(), 16000, "made")[1])
        return (made[: len(wanted)] - wanted).abs().mean().item()

    aim = reader.aim(feats)
    assert torch.equal(refined.aim(feats), aim)
    whole = refined.inference(feats, seed=1)
    streamed = torch.cat(list(refined.stream(feats.split(9), seed=1, chunk_frames=16)))
    assert streamed.shape == whole.shape
    for wav in (whole, refined.inference_batch([feats, feats[:20]], seeds=[1, 2])[0], streamed):
        assert distance(wav, aim) < 0.7 * distance(wav, feats)


def test_a_reader_alone_is_trained_and_the_flow_stays_as_it_is(speech: tuple) -> None:
    wav, feats, _ = speech
    vocoder = voice(likelihood_weight=0.0).train()
    vocoder.for_training(lambda channels: None)
    loss, stats, weight = vocoder.loss(wav, feats, None, None)
    loss.backward()
    assert set(stats) == {"loss", "reader_mel", "reader_pitch"} and weight == wav.numel()
    assert torch.allclose(loss, stats["reader_mel"] + PITCH * stats["reader_pitch"])
    for name, parameter in vocoder.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None) == name.startswith("reader.")
    assert vocoder.may_be_new == ("reader.",)


def test_both_learn_each_by_its_own_loss(speech: tuple) -> None:
    wav, feats, _ = speech
    vocoder = voice(reader_weight=2.0).eval()  # nothing is drawn
    loss, stats, _ = vocoder.loss(wav, feats, None, None)
    reader = stats["reader_mel"] + PITCH * stats["reader_pitch"]
    assert torch.allclose(loss, -stats["log_likelihood"] + 2 * reader)
    assert torch.equal(stats["log_likelihood"], vocoder.log_likelihood(wav[0], feats[0]))
    loss.backward()
    ours = {name: parameter.grad for name, parameter in vocoder.named_parameters()}
    alone = voice(reader_weight=2.0, likelihood_weight=0.0).eval()
    alone.loss(wav, feats, None, None)[0].backward()
    for name, parameter in alone.named_parameters():
        if name.startswith("reader."):  # the likelihood doesn't bend what is read
            torch.testing.assert_close(ours[name], parameter.grad)
        else:
            assert ours[name] is not None and parameter.grad is None
    still = voice(reader_weight=0.0)
    still.for_training(lambda channels: None)
    assert not any(parameter.requires_grad for parameter in still.reader.parameters()) and still.may_be_new == ()
    assert set(still.loss(wav, feats, None, None)[1]) == {"loss", "log_likelihood", "log_p", "logdet"}


def test_the_loss_counts_frames_of_items_and_is_least_for_what_is_right() -> None:
    settings = feature_settings("fbank", CONF)
    pitches = pitches_looked_for()
    feats = torch.randn(2, 9, 40, generator=torch.Generator().manual_seed(0))
    pitch = Pitch(pitches[[7]].float().repeat(2, 9), torch.tensor([[1.0] * 4 + [0.0] * 5] * 2))

    def says(offset: float, place: int) -> tuple[Tensor, dict[str, Tensor]]:
        def read(given: Tensor, frames: list[int]) -> Reading:
            assert frames == [9, 5, 9, 5]  # as it is, then smooth
            right = feats.repeat(2, 1, 1) + offset
            right[1, 5:] = right[3, 5:] = math.inf if offset == 0 else 1e9
            logits = torch.full((4, 9, 1 + len(pitches)), -30.0)
            logits[:, :4, place], logits[:, 4:, 0] = 30.0, 30.0
            return Reading(right.nan_to_num(posinf=1e9), logits.log_softmax(dim=2))

        return reading_loss(read, feats, pitch, [9, 5], settings, training=False)

    loss, figures = says(0.1, 8)
    assert figures["reader_mel"].item() == pytest.approx(0.1 / settings.scale, rel=1e-4)
    assert loss.item() == pytest.approx((figures["reader_mel"] + PITCH * figures["reader_pitch"]).item())
    assert figures["reader_pitch"] < says(0.1, 9)[1]["reader_pitch"] < says(0.1, 12)[1]["reader_pitch"]
    assert says(0.0, 8)[1]["reader_mel"].item() == 0


def test_validation_doesnt_depend_on_what_is_beside_an_item(speech: tuple) -> None:
    feats, settings, vocoder = speech[1], feature_settings("fbank", CONF), voice()
    frames = [feats.shape[1], 10]
    pitch = Pitch(torch.full((2, frames[0]), 200.0), torch.ones(2, frames[0]))
    padded = torch.cat([feats, feats.clone()])
    padded[1, 10:] = 0.0
    with torch.no_grad():
        both = reading_loss(vocoder.read, padded, pitch, frames, settings, training=False)[1]
        parts = [
            reading_loss(vocoder.read, feats[:, :n], Pitch(*(p[:1, :n] for p in pitch)), [n], settings, False)[1]
            for n in frames
        ]
    for name, value in both.items():
        alone = sum(part[name] * n for part, n in zip(parts, frames, strict=True)) / sum(frames)
        torch.testing.assert_close(value, alone, rtol=1e-5, atol=1e-6)


def test_training_reads_other_levels_and_smooth_features_and_validation_always_the_same(speech: tuple) -> None:
    feats = speech[1].repeat(64, 1, 1)
    settings, seen = feature_settings("fbank", CONF), []

    def read(given: Tensor, frames: list[int]) -> Reading:
        seen.append(given)
        return Reading(given, given.new_zeros(*given.shape[:2], 1 + len(pitches_looked_for())).log_softmax(dim=2))

    pitch = Pitch(torch.full(feats.shape[:2], 200.0), torch.ones(feats.shape[:2]))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        reading_loss(read, feats, pitch, [feats.shape[1]] * 64, settings, training=True)
    rough = (seen[0].diff(dim=2).abs().mean(dim=(1, 2)) / feats[0].diff(dim=1).abs().mean()).numpy()
    assert (rough < 0.9).sum() > 20 and (rough > 0.97).sum() > 10
    levels = seen[0].mean(dim=(1, 2))
    assert levels.max() - levels.min() > 0.6  # log10: of 0.83
    for _ in range(2):
        reading_loss(read, feats, pitch, [feats.shape[1]] * 64, settings, training=False)
    assert torch.equal(seen[1], seen[2]) and torch.equal(seen[1][:64], feats)
    assert torch.equal(seen[1][64:], smooth(smooth(feats.mT).mT))


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_and_copies_read_the_same(speech: tuple, dtype: torch.dtype) -> None:
    feats, vocoder = speech[1][0], voice()
    other = copy.deepcopy(vocoder).to(dtype)
    tolerance = 1e-5 if dtype == torch.float64 else 0.05
    torch.testing.assert_close(other.aim(feats.to(dtype)).float(), vocoder.aim(feats), rtol=0, atol=tolerance)
    assert other.inference(feats, seed=0).dtype == dtype
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(vocoder.aim(feats), vocoder.aim(feats.double()).float())


@torch.no_grad()
def test_silence_has_no_pitch_and_one_frame_is_enough(reader: FloWaveNetVocoder) -> None:
    quiet = torch.full((30, 40), -10.0)
    said = reader.pitch(quiet)
    assert said.hertz.min() >= LOWEST and said.hertz.shape == said.voiced.shape == (30,)
    assert reader.inference(quiet[:1], seed=0).shape == (128,)
    nothing = torch.full((1, 3, 1 + len(pitches_looked_for())), -50.0)
    nothing[..., 0] = 0.0
    hertz, voiced = reader.reader.path(nothing, [3])
    assert not voiced.any() and (hertz >= LOWEST).all()
    with pytest.raises(ValueError, match="source is noise"):
        voice(source="noise").pitch(quiet)


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(reader_channels=-1), "reader_channels must be at least 0 and reader_layers at least 1, not -1 and 2"),
        (dict(reader_layers=0), "not 8 and 0"),
        (dict(reader_weight=-1.0), "reader_weight must be a number from 0, not -1.0"),
        (dict(likelihood_weight=0.0, reader_weight=0.0), "nothing is learnt"),
        (dict(likelihood_weight=0.0, reader_channels=0), "nothing is learnt"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        voice(**settings)


def test_the_network_is_as_large_as_it_says() -> None:
    reader = MelReader(80, 256, 6)
    assert sum(parameter.numel() for parameter in reader.parameters()) == pytest.approx(1.74e6, rel=0.02)
    assert reader.reach == 20
