"""The prepared flow gives the numbers of the flow's own inverse, in one go and in pieces."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from flowavenet_plugin.flow import FloWaveNet
from flowavenet_plugin.flow.synthesis import PreparedFlow, prepared_flow, stack
from flowavenet_plugin.flow.synthesis import step as prepared_step
from flowavenet_plugin.kernels.backends import Fused, Separate
from flowavenet_plugin.kernels.rows import Marked
from flowavenet_plugin.kernels.scratch import Scratch
from gated_product_twin import gated_product

OPTIONS = [
    dict(),
    dict(causal=True),
    dict(affine=False),
    dict(n_flow=3),
    dict(n_flow=1, n_mels=5),
    dict(n_flow=3, n_mels=5, block_per_split=1),
    dict(n_block=5, n_flow=3, block_per_split=1, upsample_scales=(3, 3)),
    dict(block_per_split=9),
    dict(n_layer=1),
    dict(n_layer=3, kernel_size=5),
    dict(upsample_scales=(3, 5, 7)),
    dict(upsample_scales=(7,)),
    dict(causal=True, kernel_size=2, n_flow=3, upsample_scales=(5,)),
    dict(first_squeeze=8),
    dict(n_flow=[1, 2, 3], n_layer=[3, 2, 1], filter_size=[2, 4, 6], block_per_split=1),
    dict(cond_channels=3, cond_filter_size=5),
    dict(cond_channels=[3, 4, 5], cond_filter_size=5, cond_n_layer=0, n_flow=3, first_squeeze=4, upsample_scales=(7,)),
    dict(cond_channels=3, cond_filter_size=5, n_block=5, block_per_split=1, upsample_scales=(5,)),
    dict(cond_channels=3, cond_filter_size=5, causal=True, affine=False),
    dict(mixing=True, n_flow=3, upsample_scales=(3, 3)),
    dict(mixing=True, affine=False, block_per_split=[1], cond_channels=3, cond_filter_size=5),
    dict(share_stacks=True, n_flow=3),
]


def model(**options: object) -> FloWaveNet:
    """Return a small model in double precision whose weights all matter."""
    torch.manual_seed(0)
    sizes = dict(n_mels=4, n_block=3, n_flow=2, n_layer=2, filter_size=4, block_per_split=2, upsample_scales=(4, 4))
    network = FloWaveNet(**{**sizes, **options}).double().eval()
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return network


def inputs(network: FloWaveNet, frames: int, batch: int = 2) -> tuple[Tensor, Tensor]:
    """Return noise and conditioning."""
    noise = torch.randn(batch, 1, frames * network.hop_length).double()
    return noise, torch.randn(batch, network.n_mels, frames).double()


def pieces(network: FloWaveNet, noise: Tensor, cond: Tensor, sizes: list[int]) -> list[Tensor]:
    """Run a session over pieces of so many frames."""
    session, start, hop = PreparedFlow(network).session(len(noise)), 0, network.hop_length
    out = []
    for size in sizes:
        end = start + size
        samples, frames = noise[:, 0, start * hop : end * hop], cond[:, :, start:end].transpose(1, 2)
        out.append(session.push(samples, frames, final=end == cond.shape[2]))
        start = end
    return out


@torch.no_grad()
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_it_is_the_inverse(options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    network = model(**options)
    monkeypatch.setattr(prepared_step, "CPU_ROWS", 8)
    for frames in (1, 2, 19):
        noise, cond = inputs(network, frames)
        expected = network.inverse(noise, cond)
        torch.testing.assert_close(PreparedFlow(network).inverse(noise, cond), expected, rtol=0, atol=1e-10)
        alone = PreparedFlow(network).inverse(noise[1:], cond[1:])
        torch.testing.assert_close(alone, expected[1:], rtol=0, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_any_cut_into_pieces_gives_the_same(options: dict) -> None:
    network, generator = model(**options), random.Random(1)
    noise, cond = inputs(network, 40)
    sizes = [1, 1, 1]
    while sum(sizes) < 40:
        sizes.append(min(40 - sum(sizes), generator.choice([1, 2, 5, 17])))
    joined = torch.cat(pieces(network, noise, cond, sizes), dim=1)
    torch.testing.assert_close(joined, network.inverse(noise, cond)[:, 0], rtol=0, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_padding_touches_nothing(options: dict) -> None:
    network = model(**options)
    noise, cond = inputs(network, 9, batch=3)
    lengths = torch.tensor([9, 4, 1]) * network.hop_length - torch.tensor([0, 1, 3])
    out = PreparedFlow(network).inverse(noise, cond, lengths)
    torch.testing.assert_close(out, network.inverse(noise, cond, lengths), rtol=0, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("backend", [Separate(), Fused(gated_product)], ids=["separate", "fused"])
@pytest.mark.parametrize("first", [0, 7])
@pytest.mark.parametrize("ends", [None, torch.tensor([20, 9, 12])])
@pytest.mark.parametrize(
    "options", [dict(), dict(causal=True), dict(n_layer=3, n_mels=5), dict(cond_channels=3)], ids=str
)
def test_items_at_once_are_each_item(
    options: dict, ends: Tensor | None, first: int, backend: Separate | Fused, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As batches go on a GPU: below each other in one matrix, and with one kernel for gates and products."""
    monkeypatch.setattr(stack, "choose_backend", lambda *_: backend)
    monkeypatch.setattr(stack, "fewer_products_pay", lambda *_: False)
    folded = PreparedFlow(model(**options)).blocks[1].steps[-1].stack
    total, last = 20, first + 8
    places = torch.arange(first - folded.left, last + folded.right)
    inside = (places >= 0) & (places < (torch.tensor([[total]]) if ends is None else ends[:, None]))
    x = torch.randn(3, len(places), folded.channels).double() * inside.expand(3, -1)[:, :, None]
    sizes = {half: folded.weights.times(f"cond{k}" if k else "cond").shape[0] for k, half in enumerate(folded.halves)}
    conds = {half: torch.randn(3, total, size).double() for half, size in sizes.items()}

    def cond(half: int | None, start: int, end: int) -> Tensor:
        return conds[half][:, start:end]

    found = folded.predict_batch(x.flatten(1), first, last, total, cond, ends, Scratch())
    for i in range(3):
        marks = (torch.arange(total) < (total if ends is None else ends[i]))[:, None].double()
        args = first, last, total, cond, i, Marked(marks, 0), Scratch()
        torch.testing.assert_close(found[i], folded.predict(x[i].flatten(), *args), rtol=0, atol=1e-12)


@torch.no_grad()
def test_memory_of_a_session_is_bounded() -> None:
    network = model()
    held = []
    for frames in (60, 240):
        session = PreparedFlow(network).session()
        noise, cond = inputs(network, frames, batch=1)
        largest = 0
        for i in range(frames):
            session.push(noise[:, 0, i * 16 : i * 16 + 16], cond[:, :, i : i + 1].transpose(1, 2), i == frames - 1)
            largest = max(largest, sum(storage_bytes(session).values()))
        held.append(largest)
    assert held[0] == held[1]


def storage_bytes(root: object) -> dict[int, int]:
    """Return the bytes of all tensors that an object holds, by storage, weights left out."""
    found: dict[int, int] = {}
    seen: set[int] = set()
    queue = [root]
    while queue:
        item = queue.pop()
        if id(item) in seen or type(item).__name__ in (
            "PreparedFlow",
            "PreparedStep",
            "PreparedBlock",
            "Block",
            "Step",
        ):
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            found[item.untyped_storage().data_ptr()] = item.untyped_storage().nbytes()
        elif isinstance(item, dict):
            queue.extend(item.values())
        elif isinstance(item, (list, tuple)):
            queue.extend(item)
        elif hasattr(item, "__dict__"):
            queue.extend(vars(item).values())
    return found


@torch.no_grad()
def test_chunks_of_a_long_utterance_join(monkeypatch: pytest.MonkeyPatch) -> None:
    network = model()
    noise, cond = inputs(network, 50)
    monkeypatch.setattr(prepared_flow, "CHUNK_SAMPLES", 100)
    out = PreparedFlow(network).inverse(noise, cond)
    torch.testing.assert_close(out, network.inverse(noise, cond), rtol=0, atol=1e-10)


@torch.no_grad()
def test_bfloat16_stays_close_and_samples_stay_float32() -> None:
    network = model(filter_size=32).float()
    noise, cond = (value.float() for value in inputs(network, 50))
    expected, rounded = network.inverse(noise, cond), PreparedFlow(network, torch.bfloat16).inverse(noise, cond)
    error = (rounded - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert rounded.dtype == torch.float32 and 0 < error < 0.02
    torch.testing.assert_close(PreparedFlow(network).inverse(noise, cond), expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_it_knows_when_weights_changed() -> None:
    network = model()
    prepared = PreparedFlow(network)
    assert not prepared.stale
    network.load_state_dict(network.state_dict())
    assert prepared.stale
    prepared = PreparedFlow(network)
    network.blocks[0].steps[0].actnorm.loc.add_(1.0)
    assert prepared.stale
    prepared = PreparedFlow(network)
    network.float()
    assert prepared.stale and PreparedFlow(network).dtype == torch.float32


def test_shapes_that_do_not_fit() -> None:
    prepared = PreparedFlow(model())
    with pytest.raises(ValueError) as error:
        prepared.inverse(torch.zeros(1, 1, 33), torch.zeros(1, 4, 2))
    assert all(word in str(error.value) for word in ("33", "(1, 4, 2)", "16"))
