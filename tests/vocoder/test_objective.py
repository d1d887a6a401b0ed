"""What training makes small besides the likelihood: distances of sampled speech, discriminators; blurred features."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from flowavenet_plugin.data.features import full_settings
from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder
from flowavenet_plugin.vocoder.inversion.settings import feature_settings
from flowavenet_plugin.vocoder.training.adversarial import FEATURES, Adversary
from flowavenet_plugin.vocoder.training.blur import blurred, smooth
from flowavenet_plugin.vocoder.training.distance import FLOOR, SpectralDistance

CONF = full_settings("fbank", dict(fs=8000, n_fft=128, hop_length=32, n_mels=6, fmin=0, fmax=4000))
SIZES = dict(n_block=1, n_flow=2, n_layer=1, filter_size=4, upsample_scales=(4, 8), prediction_order=4)
FRAMES = 256  # 8192 samples: long enough for edges that aren't compared


class Judge(nn.Module):
    """Two discriminators of two layers each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.ModuleList(nn.Conv1d(1, channels, size, padding=size // 2) for size in (3, 5))
        self.last = nn.ModuleList(nn.Conv1d(channels, 1, 3, padding=1) for _ in range(2))

    def forward(self, wav: Tensor) -> list[list[Tensor]]:
        """Judge (B, 1, samples)."""
        hidden = [layer(wav).tanh() for layer in self.first]
        return [[one, layer(one)] for one, layer in zip(hidden, self.last, strict=True)]


def voice(**settings: object) -> FloWaveNetVocoder:
    """Return a tiny vocoder, not trained."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = FloWaveNetVocoder(8000, 32, 6, **SIZES, mel_range=(0.0, 4000.0), **settings)
        made.set_features("fbank", CONF)
        made.for_training(Judge)
        for parameter in made.flow.parameters():
            parameter.data.add_(0.02 * torch.randn_like(parameter))
    return made


def batch(count: int = 2) -> tuple[Tensor, Tensor]:
    """Return noise as speech, and features."""
    generator = torch.Generator().manual_seed(1)
    wav = 0.1 * torch.randn(count, FRAMES * 32, generator=generator)
    return wav, -1.5 + 0.3 * torch.randn(count, FRAMES, 6, generator=generator)


@pytest.mark.parametrize("fs, n_fft, hop", [(22050, 1024, 256), (8000, 128, 32), (48000, 2048, 600)])
def test_the_distance_of_a_sound_to_itself_is_0_and_of_one_half_as_loud_is_ln_2(fs: int, n_fft: int, hop: int) -> None:
    conf = full_settings("fbank", dict(fs=fs, n_fft=n_fft, hop_length=hop, n_mels=20, fmin=0, fmax=fs // 2))
    distance = SpectralDistance(feature_settings("fbank", conf))
    wav = torch.randn(2, 6000, generator=torch.Generator().manual_seed(0))
    assert all(value == 0 for value in distance(wav, wav).values())
    half = distance(wav / 2, wav)
    # Norms of the difference and of half the sound: 0.5; the logarithms differ by ln 2 in each bin and band.
    assert half["sampled_stft"].item() == pytest.approx(0.5 + math.log(2), rel=1e-3)
    assert half["sampled_mel"].item() == pytest.approx(math.log(2), rel=1e-3)


def test_a_band_is_told_from_its_neighbour_and_silence_has_a_gradient() -> None:
    distance = SpectralDistance(feature_settings("fbank", CONF))
    time = torch.arange(4000) / 8000
    tones = [torch.sin(2 * math.pi * hertz * time)[None] for hertz in (500, 520, 2000)]
    near, far = (distance(tones[0], tone)["sampled_mel"] for tone in tones[1:])
    assert 0 < near < far / 5
    silence = torch.zeros(1, 4000, requires_grad=True)
    terms = distance(silence, tones[0])
    sum(terms.values()).backward()
    assert torch.isfinite(silence.grad).all() and FLOOR > 0
    short = distance(tones[0][:, :40], tones[1][:, :40])
    assert all(torch.isfinite(value) for value in short.values())


def test_blurring_smooths_a_share_of_the_items_and_keeps_levels() -> None:
    feats = torch.randn(400, 9, 7, generator=torch.Generator().manual_seed(0))
    whole = [9] * 400
    assert torch.equal(blurred(feats, 0.0, whole), feats)
    torch.manual_seed(0)
    changed = (blurred(feats, 0.5, whole) != feats).flatten(1).any(dim=1)
    assert changed.float().mean() == pytest.approx(0.5 * 8 / 9, abs=0.08)  # 0 and 0 times is one of nine
    torch.manual_seed(0)
    every = blurred(feats, 1.0, whole)
    assert every.mean() == pytest.approx(feats.mean().item(), abs=0.01) and every.std() < 0.8 * feats.std()
    assert smooth(torch.tensor([[[0.0, 4.0, 0.0, 0.0]]])).tolist() == [[[1.0, 2.0, 1.0, 0.0]]]
    known = {}
    for item, before in zip(every, feats, strict=True):
        for in_time in range(3):
            for over_bands in range(3):
                made = before[None]
                for _ in range(in_time):
                    made = smooth(made.mT).mT
                for _ in range(over_bands):
                    made = smooth(made)
                if torch.allclose(made[0], item, atol=1e-6):
                    known[in_time, over_bands] = known.get((in_time, over_bands), 0) + 1
    assert len(known) == 9 and sum(known.values()) == 400 and min(known.values()) > 15
    torch.manual_seed(0)
    alone = blurred(feats[:, :5], 1.0, [5] * 400)
    torch.manual_seed(0)
    padded = torch.nn.functional.pad(feats[:, :5], (0, 0, 0, 4), value=7.0)
    assert torch.equal(blurred(padded, 1.0, [5] * 400)[:, :5], alone)  # padding isn't smoothed into speech


def test_one_backward_pass_trains_both_sides_each_by_its_own_loss() -> None:
    torch.manual_seed(0)
    adversary = Adversary(Judge(3))
    made, wanted = torch.randn(2, 50, requires_grad=True), torch.randn(2, 50)
    deceived, told, figures = adversary.losses(made, wanted)
    parameters = list(adversary.parameters())
    (for_made,) = torch.autograd.grad(deceived, made, retain_graph=True)
    assert for_made.abs().sum() > 0
    assert torch.autograd.grad(deceived, parameters, retain_graph=True, allow_unused=True) == (None,) * len(parameters)
    assert torch.autograd.grad(told, made, retain_graph=True, allow_unused=True) == (None,)
    assert all(grad.abs().sum() > 0 for grad in torch.autograd.grad(told, parameters))
    real, fake = (adversary.discriminators(x[:, None]) for x in (wanted, made))
    expected = sum((f[-1] - 1).square().mean() for f in fake) / 2
    matched = sum((f[0] - r[0]).abs().mean() for f, r in zip(fake, real, strict=True)) / 2
    judged = sum((r[-1] - 1).square().mean() + f[-1].square().mean() for r, f in zip(real, fake, strict=True)) / 2
    assert torch.allclose(deceived, expected + FEATURES * matched) and torch.allclose(told, judged)
    for name, value in (("adversarial", expected), ("feature_matching", matched), ("discriminator", judged)):
        assert torch.allclose(figures[name], value)


@pytest.mark.parametrize("source", ["noise", "pulses"])
def test_the_loss_is_the_weighted_sum_of_what_it_reports(source: str) -> None:
    wav, feats = batch()
    weights = dict(likelihood_weight=0.5, sampled_weight=2.0, adversarial_weight=0.3)
    vocoder = voice(source=source, **weights)
    loss, stats, weight = vocoder.loss(wav, feats, None, None)
    assert weight == 2 * FRAMES * 32
    sampled = stats["sampled_stft"] + stats["sampled_mel"]
    judged = stats["adversarial"] + FEATURES * stats["feature_matching"]
    expected = -0.5 * stats["log_likelihood"] + 2.0 * sampled + 0.3 * judged + stats["discriminator"]
    assert torch.allclose(loss, expected) and stats["loss"] == loss
    loss.backward()
    trained = [name for name, parameter in vocoder.named_parameters() if parameter.grad is not None]
    assert len(trained) == len(list(vocoder.parameters())) and any(name.startswith("adversary.") for name in trained)
    plain = voice()
    plain.load_state_dict({k: v for k, v in vocoder.state_dict().items() if not k.startswith("adversary.")})
    signs = [plain.loss(sign * wav, feats, None, None)[1]["log_likelihood"] for sign in (1, -1)]
    assert min((stats["log_likelihood"] - found).abs() for found in signs) < 0.02  # items may be turned over apart


def test_sampled_speech_has_no_gradient_to_the_filters_of_the_prediction() -> None:
    wav, feats = batch()
    vocoder = voice(likelihood_weight=0.0, sampled_weight=1.0)
    vocoder.loss(wav, feats, None, None)[0].backward()
    grads = [parameter.grad for parameter in vocoder.prediction.parameters()]
    assert all(grad is None or not grad.any() for grad in grads)
    assert all(parameter.grad is not None for parameter in vocoder.flow.parameters())


def test_a_step_along_the_gradient_makes_sampled_speech_nearer() -> None:
    wav, feats = batch()
    vocoder = voice(likelihood_weight=0.0, sampled_weight=1.0).eval()  # the same noise each time
    before, _, _ = vocoder.loss(wav, feats, None, None)
    before.backward()
    with torch.no_grad():
        for parameter in vocoder.flow.parameters():
            parameter -= 1e-3 * parameter.grad / parameter.grad.norm().clamp(min=1e-8)
    assert vocoder.loss(wav, feats, None, None)[0] < before


@torch.no_grad()
def test_distances_dont_see_padding_and_items_count_by_their_lengths() -> None:
    distance = SpectralDistance(feature_settings("fbank", CONF))
    generator = torch.Generator().manual_seed(0)
    made, wanted = (torch.randn(2, 8000, generator=generator) * scale for scale in (0.2, 0.1))
    sizes = torch.tensor([8000, 4000])
    made[1, 4000:] = wanted[1, 4000:] = 0
    many = distance(made, wanted, sizes)
    alone = [distance(made[i : i + 1, : sizes[i]], wanted[i : i + 1, : sizes[i]]) for i in range(2)]
    for name, value in many.items():
        expected = (2 * alone[0][name] + alone[1][name]) / 3
        assert value.item() == pytest.approx(expected.item(), rel=0.03)  # windows at the end see zeros instead
    twice = distance(made[:1].repeat(2, 1), wanted[:1].repeat(2, 1))
    for name, value in twice.items():
        assert value.item() == pytest.approx(alone[0][name].item(), rel=1e-5)  # of any number of items the same


@torch.no_grad()
def test_an_utterance_has_the_same_figures_in_validation_whatever_batch_it_is_in() -> None:
    wav, feats = batch(3)
    vocoder = voice(sampled_weight=1.0, adversarial_weight=0.5, source="pulses").eval()
    many = vocoder.loss(wav, feats, None, None)[1]
    alone = [vocoder.loss(wav[i : i + 1], feats[i : i + 1], None, None)[1] for i in range(3)]
    for name in ("loss", "log_likelihood", "sampled_stft", "sampled_mel"):
        expected = sum(one[name] for one in alone) / 3
        assert many[name].item() == pytest.approx(expected.item(), rel=1e-4), name
    # Discriminators are reported, and choose no epoch.
    assert many["loss"] == -many["log_likelihood"] + (many["sampled_stft"] + many["sampled_mel"])


def test_discriminators_that_were_not_made_are_missed() -> None:
    vocoder = voice(adversarial_weight=1.0)
    vocoder.adversary = None
    with pytest.raises(ValueError, match="for_training"):
        vocoder.train().loss(*batch(), None, None)


@torch.no_grad()
def test_a_likelihood_is_computed_alone_and_without_chance() -> None:
    wav, feats = batch(1)
    vocoder = voice(sampled_weight=1.0, blur=1.0, source="pulses").train()
    state = torch.get_rng_state()
    one, two = (vocoder.log_likelihood(wav[0], feats[0]) for _ in range(2))
    assert one == two and torch.equal(torch.get_rng_state(), state)


@torch.no_grad()
def test_validation_is_the_same_each_time_and_training_draws_anew() -> None:
    wav, feats = batch()
    vocoder = voice(sampled_weight=1.0, blur=0.5, source="pulses")
    one, two = (vocoder.train().loss(wav, feats, None, None)[0] for _ in range(2))
    assert one != two
    state = torch.get_rng_state()
    one, two = (vocoder.eval().loss(wav, feats, None, None)[0] for _ in range(2))
    assert one == two and torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    one = vocoder.train().loss(wav, feats, None, None)[0]
    torch.manual_seed(5)
    assert vocoder.loss(wav, feats, None, None)[0] == one


@torch.no_grad()
def test_padding_is_neither_seen_nor_counted() -> None:
    wav, feats = batch()
    vocoder = voice(sampled_weight=1.0, source="pulses").eval()
    sizes, frames = torch.tensor([FRAMES * 32, 200 * 32 - 5]), torch.tensor([FRAMES, 200])
    many = vocoder.loss(wav, feats, sizes, frames)[1]["log_likelihood"]
    dirty, other = wav.clone(), feats.clone()
    dirty[1, 200 * 32 - 5 :], other[1, 200:] = 0.7, 3.0
    assert torch.allclose(vocoder.loss(dirty, other, sizes, frames)[1]["log_likelihood"], many, atol=1e-5)
    alone = [
        vocoder.loss(wav[i : i + 1, : sizes[i]], feats[i : i + 1, : frames[i]], sizes[i : i + 1], frames[i : i + 1])[1]
        for i in range(2)
    ]
    expected = sum(sizes[i] * alone[i]["log_likelihood"] for i in range(2)) / sizes.sum()
    assert torch.allclose(many, expected, atol=1e-5)


def test_a_vocoder_without_these_weights_has_no_discriminators_and_no_tables() -> None:
    plain = voice()
    assert plain.adversary is None and not list(plain.tables().children())
    assert voice(source="pulses").tables().distance is None
    trained = voice(adversarial_weight=1.0)
    assert isinstance(trained.adversary, Adversary)
    kept = copy.deepcopy(trained)
    trained.for_training(Judge)  # once is enough
    assert all(torch.equal(a, b) for a, b in zip(trained.parameters(), kept.parameters(), strict=True))
