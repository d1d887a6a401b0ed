"""Linear prediction from features: inverse, Jacobian, stationary start, padding, pieces, and that it whitens."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from flowavenet_plugin.flow import recursion
from flowavenet_plugin.flow.prediction import LinearPrediction
from flowavenet_plugin.flow.prediction_session import PredictionSession

FRAMES, HOP, BANDS, ORDER = 5, 24, 6, 4


def prediction(hop_length: int = HOP, order: int = ORDER) -> LinearPrediction:
    """Return a small prediction in double precision whose weights all matter."""
    torch.manual_seed(0)
    made = LinearPrediction(16000, hop_length, BANDS, order, channels=8).double()
    for parameter in made.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return made


def data(batch: int, frames: int = FRAMES, hop_length: int = HOP) -> tuple[Tensor, Tensor, Tensor]:
    """Return a waveform, features and standardised features."""
    generator = torch.Generator().manual_seed(1)
    x, cond = (torch.randn(batch, *size, generator=generator) for size in ((frames * hop_length,), (frames, BANDS)))
    return x.double(), (0.5 * cond - 1).double(), cond.double()


@pytest.mark.parametrize("hop_length, order", [(24, 4), (24, 12), (25, 7), (24, 1)])
def test_inverse(hop_length: int, order: int) -> None:
    made, (x, feats, cond) = prediction(hop_length, order), data(3, hop_length=hop_length)
    residual, _ = made(x, feats, cond)
    torch.testing.assert_close(made.inverse(residual, feats, cond), x, rtol=0, atol=1e-9)
    assert not torch.allclose(residual, x)


def test_log_determinant_is_the_jacobians() -> None:
    made, (x, feats, cond) = prediction(), data(2, frames=2)
    _, logdet = made(x, feats, cond)
    for i in range(2):
        inputs = feats[i : i + 1], cond[i : i + 1]
        jacobian = torch.autograd.functional.jacobian(partial(_residual, made, inputs), x[i])
        torch.testing.assert_close(jacobian.triu(1), torch.zeros_like(jacobian), rtol=0, atol=1e-13)
        torch.testing.assert_close(logdet[i], torch.linalg.slogdet(jacobian)[1])


def _residual(made: LinearPrediction, inputs: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
    return made(x[None], *inputs)[0][0]


def test_every_parameter_gets_a_gradient() -> None:
    made, (x, feats, cond) = prediction(), data(2)
    residual, logdet = made(x, feats, cond)
    (residual.square().sum() - logdet.sum()).backward()
    assert all(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in made.parameters())


def test_gradient_agrees_with_finite_differences() -> None:
    made, (x, feats, cond) = prediction(), data(1, frames=2)

    def loss(bias: Tensor) -> Tensor:
        residual, logdet = torch.func.functional_call(made, {"out.bias": bias}, (x, feats, cond))
        return residual.square().sum() - logdet.sum()

    assert torch.autograd.gradcheck(loss, (made.out.bias.detach().clone().requires_grad_(),), fast_mode=True)


@pytest.mark.parametrize("solved", [2, 512])  # blocks at once: several parts, and one
@pytest.mark.parametrize("lengths", [None, torch.tensor([FRAMES * HOP - 3, HOP + 5, ORDER - 1])])
def test_gradients_of_the_inverse_are_those_of_a_solved_system(
    solved: int, lengths: Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole filter as one matrix of each item, from unit impulses, solved by torch."""
    monkeypatch.setattr(recursion, "SOLVED_BLOCKS", solved)
    made, (residual, feats, cond) = prediction(), data(3)
    residual.requires_grad_(), feats.requires_grad_(), cond.requires_grad_()
    weights = torch.randn(residual.shape, generator=torch.Generator().manual_seed(2)).double()
    inputs = [residual, feats, cond, *made.parameters()]
    ours = torch.autograd.grad((made.inverse(residual, feats, cond, lengths) * weights).sum(), inputs)

    total, size = torch.zeros(()).double(), residual.shape[1]
    units = torch.eye(size).double()
    for i in range(3):
        own = (part[i].expand(size, -1, -1) for part in (feats, cond))
        ends = None if lengths is None else lengths[i].expand(size)
        after = slice(None) if lengths is None else slice(0, int(lengths[i]))
        matrix = made(units, *own, ends)[0].T[after, after]
        x = torch.linalg.solve(matrix, residual[i, after])
        total = total + (x * weights[i, after]).sum()
    expected = torch.autograd.grad(total, inputs)
    for one, other in zip(ours, expected, strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def test_filters_get_a_gradient_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    made, (residual, feats, cond) = prediction().requires_grad_(False), data(2)
    monkeypatch.setattr(recursion, "whiten", lambda *_: pytest.fail("called"))
    residual.requires_grad_()
    x = made.inverse(residual, feats, cond)
    (grad,) = torch.autograd.grad(x.square().sum(), residual)
    moved = residual.detach() - 1e-6 * grad
    change = made.inverse(moved, feats, cond).square().sum() - x.square().sum()
    assert change.item() == pytest.approx(-1e-6 * grad.square().sum().item(), rel=1e-3)


def test_padding_is_neither_seen_nor_counted() -> None:
    made, (x, feats, cond) = prediction(), data(3)
    lengths = torch.tensor([FRAMES * HOP, 2 * HOP + 5, ORDER - 1])
    padded = x.masked_fill(torch.arange(x.shape[1]) >= lengths[:, None], math.nan)
    residual, logdet = made(padded, feats, cond, lengths)
    for i, size in enumerate(lengths.tolist()):
        frames = math.ceil(size / HOP)
        whole = torch.zeros(1, frames * HOP).double()
        whole[0, :size] = x[i, :size]
        alone, alone_logdet = made(whole, feats[i : i + 1, :frames], cond[i : i + 1, :frames], torch.tensor([size]))
        torch.testing.assert_close(residual[i, :size], alone[0, :size])
        torch.testing.assert_close(logdet[i], alone_logdet[0])
        assert not residual[i, size:].any()
    back = made.inverse(residual, feats, cond, lengths)
    mask = torch.arange(x.shape[1]) < lengths[:, None]
    torch.testing.assert_close(back, x * mask, rtol=0, atol=1e-9)


@pytest.mark.parametrize("sizes", [[FRAMES], [1] * FRAMES, [2, 0, 3]])
def test_pieces_joined_are_the_whole(sizes: list[int]) -> None:
    made, (residual, feats, cond) = prediction(), data(1)
    session, pieces, done = PredictionSession(made), [], 0
    for i, (part, standard) in enumerate(zip(feats[0].split(sizes), cond[0].split(sizes), strict=True)):
        session.push_frames(part, standard, final=i == len(sizes) - 1)
        late = done + 7 * i  # the residual comes in pieces of its own
        pieces.append(session.push(residual[0, done:late]))
        done = late
    pieces.append(session.push(residual[0, done:]))
    whole = made.inverse(residual, feats, cond)[0]
    torch.testing.assert_close(torch.cat(pieces), whole, rtol=0, atol=1e-9)


def test_the_first_block_is_stationary_from_the_first_sample_on() -> None:
    made, (_, feats, cond) = prediction(), data(1)
    units = torch.eye(FRAMES * HOP).double()
    answers = made.inverse(
        units, feats.expand(len(units), -1, -1), cond.expand(len(units), -1, -1)
    ).T  # x = answers @ e
    covariance = answers @ answers.T
    first = covariance[: ORDER + 1, : ORDER + 1]
    for start in range(1, made.block - ORDER):
        part = slice(start, start + ORDER + 1)
        torch.testing.assert_close(covariance[part, part], first)
    assert not torch.allclose(covariance[-ORDER - 1 :, -ORDER - 1 :], first)


def test_at_its_start_it_follows_the_mel() -> None:
    """Before training, speech-like noise is already whitened: its spectrum comes from the features alone."""
    torch.manual_seed(0)
    made = LinearPrediction(22050, 256, 80, order=16)
    frames = 40
    noise = torch.randn(frames * 256 + 2)
    x = (noise[2:] + 1.6 * noise[1:-1] + 0.9 * noise[:-2])[None] * 0.05
    window = torch.hann_window(1024)
    spectrum = torch.stft(x, 1024, 256, window=window, return_complex=True).abs()[:, :, :frames]
    bins = torch.linspace(0, 11025, 513)
    centres = 80 * (7600 / 80) ** (torch.arange(80) / 79)
    nearest = (bins[:, None] - centres).abs().argmin(dim=0)
    feats = spectrum[:, nearest].transpose(1, 2).clamp(min=1e-5).log10()
    residual, logdet = made(x, feats, torch.zeros_like(feats))

    def flatness(wav: Tensor) -> float:
        power = torch.stft(wav, 256, 64, window=torch.hann_window(256), return_complex=True).abs().square().mean(2)[0]
        return (power.log().mean().exp() / power.mean()).item()

    assert flatness(residual) > 2 * flatness(x)
    assert torch.isfinite(logdet).all()


@pytest.mark.parametrize("hop_length, order, limit", [(24, 13, 12), (25, 26, 25), (24, -1, 12), (2000, 300, 256)])
def test_orders_out_of_range(hop_length: int, order: int, limit: int) -> None:
    with pytest.raises(ValueError, match=f"prediction_order.*1 to {limit}.*{hop_length}.*{order}"):
        LinearPrediction(16000, hop_length, BANDS, order)
