"""The vocoder: any hop and length, seeds, temperature, likelihood, clear errors."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder
from flowavenet_plugin.vocoder.noise import NoiseSource

SIZES = dict(n_block=4, n_flow=2, n_layer=1, filter_size=4, block_per_split=2)
RATES = {(16000, 200): (10, 20), (22050, 256): (16, 16), (24000, 300): (15, 20), (44100, 512): (16, 32)}


def vocoder(
    fs: int = 22050, hop_length: int = 12, scales: tuple[int, ...] = (3, 4), **options: object
) -> FloWaveNetVocoder:
    """Return a small vocoder in double precision whose weights all matter."""
    torch.manual_seed(0)
    made = FloWaveNetVocoder(fs, hop_length, 5, **{**SIZES, "upsample_scales": scales, **options}).double().eval()
    for parameter in made.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    made.set_feats_stats(torch.arange(5.0) - 3, torch.arange(5.0) + 0.5)
    made.checks = False  # random features are no speech
    return made


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("frames", [1, 7])
def test_any_rate_hop_and_number_of_frames(rate: tuple[int, int], frames: int) -> None:
    fs, hop = rate
    made = vocoder(fs, hop, RATES[rate], n_block=8, filter_size=2)
    feats, noise = torch.randn(frames, 5).double(), torch.randn(frames * hop).double()
    wav = made.inference(feats, noise=noise)
    assert wav.shape == (frames * hop,) and made.fs == fs
    latent, logdet = made.flow(wav[None, None], made.normalize(feats).T[None])
    torch.testing.assert_close(latent[0, 0], noise, rtol=0, atol=1e-9)
    gaussian = torch.distributions.Normal(0.0, 1.0).log_prob(noise).sum()
    torch.testing.assert_close(made.log_likelihood(wav, feats), (gaussian + logdet[0]) / (frames * hop))


def test_call_is_what_espnet2_expects() -> None:
    made = vocoder().to(torch.float32).eval()
    wav = made(torch.randn(6, 5))
    assert wav.shape == (72,) and wav.dtype == torch.float32 and not wav.requires_grad


def test_seed_and_temperature() -> None:
    made, feats = vocoder(), torch.randn(6, 5).double()
    assert torch.equal(made.inference(feats, seed=3), made.inference(feats, seed=3))
    assert not torch.equal(made.inference(feats, seed=3), made.inference(feats, seed=4))
    assert not torch.equal(made.inference(feats, seed=(3, 1)), made.inference(feats, seed=(3, 2)))
    torch.manual_seed(7)
    first = made.inference(feats)
    torch.manual_seed(7)
    assert torch.equal(made.inference(feats), first)
    noise = torch.randn(72).double()
    assert torch.equal(made.inference(feats, noise=0.5 * noise), made.inference(feats, noise=noise, temperature=0.5))
    silent = made.inference(feats, temperature=0.0, seed=1)
    assert torch.equal(silent, made.inference(feats, noise=torch.zeros(72).double()))
    # The default temperature is the constructor's, and applies to noise that is drawn.
    assert torch.equal(made.inference(feats, seed=3), made.inference(feats, seed=3, temperature=0.8))
    assert torch.equal(
        vocoder(temperature=0.5).inference(feats, seed=3), made.inference(feats, seed=3, temperature=0.5)
    )


def test_noise_of_a_seed_is_standard_normal_and_starts_alike_for_any_length() -> None:
    short, long = NoiseSource(5).draw(1000), NoiseSource(5).draw(200_000)
    assert torch.equal(short, long[:1000])
    assert abs(long.mean()) < 0.01 and abs(long.std() - 1) < 0.01


def test_inference_leaves_the_global_generator_alone_when_seeded() -> None:
    made = vocoder()
    state = torch.get_rng_state()
    made.inference(torch.randn(2, 5, generator=torch.Generator().manual_seed(1)).double(), seed=1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("prediction_order", [0, 4])
def test_loss_counts_samples_not_padding(prediction_order: int) -> None:
    made = vocoder(prediction_order=prediction_order)
    wavs = [torch.randn(60).double(), torch.randn(31).double()]  # 5 frames; 3 frames of which the last lacks 5 samples
    feats = [torch.randn(5, 5).double(), torch.randn(3, 5).double()]
    batch = torch.nn.utils.rnn.pad_sequence
    loss, stats, weight = made.loss(
        batch(wavs, batch_first=True), batch(feats, batch_first=True), torch.tensor([60, 31]), torch.tensor([5, 3])
    )
    alone = [made.log_likelihood(wav, feat) for wav, feat in zip(wavs, feats, strict=True)]
    torch.testing.assert_close(-loss, (60 * alone[0] + 31 * alone[1]) / 91)
    torch.testing.assert_close(stats["log_likelihood"], stats["log_p"] + stats["logdet"])
    assert weight.item() == 91


@pytest.mark.parametrize("reversible", [True, False])
def test_option_reversible_reaches_the_flow_and_leaves_the_loss_as_it_is(reversible: bool) -> None:
    made = vocoder(reversible=reversible)
    assert made.flow.reversible is reversible
    wav, feats = torch.randn(2, 60).double(), torch.randn(2, 5, 5).double()
    loss = made.loss(wav, feats, torch.tensor([60, 60]), torch.tensor([5, 5]))[0]
    alone = [made.log_likelihood(wav[i], feats[i]) for i in range(2)]
    torch.testing.assert_close(-loss.detach(), torch.stack(alone).mean())


def test_prediction_is_part_of_the_bijection_and_its_density() -> None:
    made, plain = vocoder(prediction_order=4), vocoder()
    feats, noise = torch.randn(7, 5).double(), 0.1 * torch.randn(84).double()  # which gives amplitudes of sound
    wav = made.inference(feats, noise=noise)
    cond = made.normalize(feats)[None]
    residual, logdet = made.prediction(wav[None], feats[None], cond)
    latent, inner = made.flow(residual[:, None], cond.mT)
    torch.testing.assert_close(latent[0, 0], noise, rtol=0, atol=1e-9)
    gaussian = torch.distributions.Normal(0.0, 1.0).log_prob(noise).sum()
    torch.testing.assert_close(made.log_likelihood(wav, feats), (gaussian + inner[0] + logdet[0]) / 84)
    assert plain.prediction is None and not any("prediction" in name for name in plain.state_dict())


def test_statistics_standardise_and_travel_in_the_state_dict() -> None:
    made = vocoder()
    raw = torch.randn(4, 5).double()
    torch.testing.assert_close(made.normalize(raw * made.feats_std + made.feats_mean), raw)
    other = FloWaveNetVocoder(22050, 12, 5, **SIZES, upsample_scales=(3, 4)).double()
    other.load_state_dict(made.state_dict())
    assert torch.equal(other.feats_mean, made.feats_mean) and torch.equal(other.feats_std, made.feats_std)


def test_gain_moves_the_likelihood_by_its_logarithm() -> None:
    made = vocoder()
    first = made.flow.blocks[0].steps[0].actnorm
    wav, feats = torch.randn(60).double(), torch.randn(5, 5).double()
    before = made.log_likelihood(wav, feats)
    first.scale.data.div_(2.0)
    first.loc.data.mul_(2.0)
    assert (before - made.log_likelihood(2 * wav, feats)).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(scales=(16, 16)), ["[16, 16]", "256", "hop_length is 12"]),
        (dict(temperature=-1.0), ["temperature", "-1.0"]),
        (dict(n_block=0), ["n_block=0"]),
    ],
)
def test_sizes_that_do_not_fit(options: dict, words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        vocoder(**options)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    "feats, options, words",
    [
        (torch.zeros(3, 6), {}, ["(frames, 5)", "(3, 6)"]),
        (torch.zeros(0, 5), {}, ["(0, 5)"]),
        (torch.full((3, 5), math.nan), {}, ["not finite"]),
        (torch.zeros(3, 5), dict(noise=torch.zeros(35)), ["(35,)", "3 frames", "(36,)"]),
        (torch.zeros(3, 5), dict(noise=torch.zeros(36), seed=1), ["not both"]),
        (torch.zeros(3, 5), dict(temperature=math.nan), ["temperature", "nan"]),
    ],
)
def test_input_that_does_not_fit(feats: Tensor, options: dict, words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        vocoder().inference(feats.double(), **options)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize("samples", [24, 37])
def test_waveform_that_does_not_fit_its_features(samples: int) -> None:
    fine = vocoder().log_likelihood(torch.zeros(25).double(), torch.zeros(3, 5).double())
    assert torch.isfinite(fine)
    if samples == 24:  # (frames - 1) * hop_length is allowed: the last frame has no sample of its own
        assert torch.isfinite(vocoder().log_likelihood(torch.zeros(24).double(), torch.zeros(3, 5).double()))
        samples = 23
    with pytest.raises(ValueError, match=rf"{samples} samples don't fit 3 frames of 12"):
        vocoder().log_likelihood(torch.zeros(samples).double(), torch.zeros(3, 5).double())
    with pytest.raises(ValueError, match=rf"{samples} samples don't fill 3 frames of 12"):
        vocoder().loss(torch.zeros(1, samples).double(), torch.zeros(1, 3, 5).double(), None, None)


@pytest.mark.parametrize(
    "name, value", [("mean", torch.zeros(4)), ("std", -torch.ones(5)), ("mean", torch.full((5,), math.nan))]
)
def test_statistics_that_cannot_be(name: str, value: Tensor) -> None:
    stats = {"mean": torch.zeros(5), "std": torch.ones(5), name: value}
    with pytest.raises(ValueError, match=name):
        vocoder().set_feats_stats(**stats)
