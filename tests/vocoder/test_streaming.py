"""Sound while features arrive, several utterances at once, and the prepared weights behind both."""

from __future__ import annotations

import copy
import gc

import pytest
import torch
from torch import Tensor

from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder
from flowavenet_plugin.vocoder.noise import NoiseSource


def vocoder(causal: bool = False, **options: object) -> FloWaveNetVocoder:
    """Return a small vocoder whose weights all matter."""
    torch.manual_seed(0)
    sizes = dict(n_block=4, n_flow=2, n_layer=2, filter_size=4, block_per_split=2, upsample_scales=(3, 4))
    made = FloWaveNetVocoder(22050, 12, 5, causal=causal, **sizes, **options).eval()
    for parameter in made.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    made.set_feats_stats(torch.arange(5.0) - 3, torch.arange(5.0) + 0.5)
    made.checks = False  # random features are no speech
    return made


@pytest.mark.parametrize("options", [dict(causal=False), dict(causal=True), dict(prediction_order=4)])
@pytest.mark.parametrize("sizes", [[100], [1] * 100, [3, 50, 0, 1, 46]])
@pytest.mark.parametrize("chunk_frames", [1, 8, 1000])
def test_joined_pieces_are_the_whole(options: dict, sizes: list[int], chunk_frames: int) -> None:
    made, feats = vocoder(**options), torch.randn(100, 5)
    wavs = list(made.stream(feats.split(sizes), seed=4, chunk_frames=chunk_frames))
    whole = made.inference(feats, seed=4)
    loudest = whole.abs().max().item()
    torch.testing.assert_close(torch.cat(wavs), whole, rtol=0, atol=1e-4 * max(1.0, loudest / 100))
    assert loudest > 0.1


@pytest.mark.parametrize("options", [dict(causal=False), dict(causal=True), dict(prediction_order=4)])
def test_sound_comes_after_the_look_ahead(options: dict) -> None:
    made, feats = vocoder(**options), torch.randn(120, 5)
    arrived = []

    def frames() -> Tensor:
        for i in range(len(feats)):
            arrived.append(i)
            yield feats[i : i + 1]

    heard = 0
    for wav in made.stream(frames(), chunk_frames=1):
        missing = len(arrived) * 12 - heard  # what has arrived before this piece and wasn't heard yet
        heard += len(wav)
        # One frame is held back, as the end must be marked.
        assert missing <= (made.look_ahead + 2) * 12
    assert heard == 120 * 12 and made.look_ahead < 40
    # And nothing further ahead than the stated look-ahead changes what is heard.
    changed = feats.clone()
    changed[60 + made.look_ahead + 1 :] += 1.0
    same = (made.inference(feats, seed=1) == made.inference(changed, seed=1))[: 61 * 12]
    assert same.all()


def live_tensors() -> list[Tensor]:
    """List all tensors that have memory (torch.export leaves some that only look like tensors)."""
    gc.collect()
    return [item for item in gc.get_objects() if type(item) in (Tensor, torch.nn.Parameter)]


def test_memory_of_a_stream_does_not_grow() -> None:
    made, held = vocoder(), []
    made.prepare()
    others = live_tensors()  # weights, and what other tests left behind
    known = {tensor.untyped_storage().data_ptr() for tensor in others}
    feats = (torch.randn(4, 5) for _ in range(300))  # drawn when they are asked for
    for i, _ in enumerate(made.stream(feats, seed=1, chunk_frames=8)):
        if i % 10 == 9:
            storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in live_tensors()}
            held.append(sum(size for place, size in storages.items() if place not in known))
    assert len(held) >= 12 and max(held[2:4]) == max(held[4:]) > 0


def test_noise_does_not_depend_on_the_cut() -> None:
    whole, source = NoiseSource(3).draw(1000), NoiseSource(3)
    assert torch.equal(torch.cat([source.draw(n) for n in (1, 500, 0, 499)]), whole)


@pytest.mark.parametrize("prediction_order", [0, 4])
def test_a_batch_is_its_utterances(prediction_order: int) -> None:
    made = vocoder(prediction_order=prediction_order)
    feats = [torch.randn(frames, 5) for frames in (30, 7, 1, 30)]
    wavs = made.inference_batch(feats, seeds=[1, 2, 3, (4, 5)], temperature=0.9)
    for wav, item, seed in zip(wavs, feats, [1, 2, 3, (4, 5)], strict=True):
        torch.testing.assert_close(wav, made.inference(item, seed=seed, temperature=0.9), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="2 seeds for 4"):
        made.inference_batch(feats, seeds=[1, 2])


@torch.no_grad()
def test_changed_weights_are_heard() -> None:
    made, feats = vocoder(), torch.randn(9, 5)
    before = made.inference(feats, seed=1)
    assert made.prepare() is made.prepare()
    assert made.prepare(torch.bfloat16).dtype == torch.bfloat16
    made.flow.blocks[0].steps[0].actnorm.loc.add_(1.0)
    after = made.inference(feats, seed=1)
    assert not torch.allclose(before, after)
    made.train()
    assert made._folded._made is None
    made.load_state_dict(vocoder().state_dict())
    torch.testing.assert_close(made.eval().inference(feats, seed=1), before)


def test_copies_do_not_carry_the_prepared_weights() -> None:
    made, feats = vocoder(), torch.randn(9, 5)
    before = made.inference(feats, seed=1)
    other = copy.deepcopy(made)
    assert other._folded._made is None and torch.equal(other.inference(feats, seed=1), before)


@pytest.mark.parametrize(
    "pieces, options, words",
    [
        ([], {}, ["no frame"]),
        ([torch.zeros(3, 6)], {}, ["(frames, 5)", "(3, 6)"]),
        ([torch.zeros(3, 5)], dict(chunk_frames=0), ["chunk_frames", "0"]),
        ([torch.zeros(3, 5)], dict(temperature=-1.0), ["temperature", "-1.0"]),
    ],
)
def test_input_that_does_not_fit(pieces: list[Tensor], options: dict, words: list[str]) -> None:
    with pytest.raises(ValueError) as error:
        list(vocoder().stream(pieces, **options))
    assert all(word in str(error.value) for word in words)
