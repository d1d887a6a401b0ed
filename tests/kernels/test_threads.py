"""Pieces in threads: each is done once, with its own buffers, and errors come out."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from flowavenet_plugin.flow import FloWaveNet
from flowavenet_plugin.flow.synthesis import PreparedFlow
from flowavenet_plugin.kernels import compiled, threads, winograd
from flowavenet_plugin.kernels.scratch import Scratch

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("inference", [True, False])
def test_each_piece_is_done_once_in_some_thread(inference: bool) -> None:
    out, seen = torch.zeros(7, 64, 64), []
    x = torch.randn(7, 64, 64)

    def work(piece: int, scratch: Scratch) -> None:
        seen.append((piece, threading.get_ident(), id(scratch), torch.is_inference_mode_enabled()))
        out[piece] = torch.mm(x[piece], x[piece], out=scratch.take("product", (64, 64), x))

    with torch.inference_mode(inference):
        threads.run_pieces(work, 7, Scratch(), CPU)
    torch.testing.assert_close(out, x @ x)
    assert sorted(piece for piece, *_ in seen) == list(range(7))
    assert len({ident for _, ident, _, _ in seen}) == len({own for _, _, own, _ in seen}) == 3
    assert {mode for *_, mode in seen} == {inference}


@pytest.mark.parametrize("count", [1, 5])
def test_errors_come_out(count: int) -> None:
    def work(piece: int, scratch: Scratch) -> None:
        raise ValueError(f"piece {piece}")

    with pytest.raises(ValueError, match="piece"):
        threads.run_pieces(work, count, Scratch(), CPU)


def test_nothing_to_do() -> None:
    threads.run_pieces(lambda piece, scratch: pytest.fail("called"), 0, Scratch(), CPU)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("frames", [1, 40])
def test_synthesis_says_the_same_with_any_number_of_threads(frames: int) -> None:
    torch.manual_seed(0)
    flow = FloWaveNet(n_mels=4, n_block=3, n_flow=2, filter_size=8, upsample_scales=(4, 4)).eval()
    for parameter in flow.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    noise, cond, made = torch.randn(2, 1, 16 * frames), torch.randn(2, 4, frames), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        made.append(PreparedFlow(flow).inverse(noise, cond))
    torch.testing.assert_close(made[0], flow.inverse(noise, cond), rtol=1e-4, atol=1e-4)
    for other in made[1:]:
        torch.testing.assert_close(other, made[0], rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("instructions")
def test_what_a_piece_calls_is_told_of_one_thread() -> None:
    told: list[tuple[int, int]] = []
    for _ in range(2):  # at first PyTorch sets up each thread
        threads.run_pieces(
            lambda piece, scratch: told.append((compiled.thread_count(), torch.get_num_threads())), 3, Scratch(), CPU
        )
        assert (compiled.thread_count(), torch.get_num_threads()) == (3, 3)
    assert told == [(1, 1)] * 6


@pytest.mark.usefixtures("instructions")
@pytest.mark.parametrize("count", [1, 3])
def test_room_and_groups_of_a_piece_dont_depend_on_the_number_of_threads(count: int) -> None:
    taps, h, bias, rooms = torch.randn(3, 64, 32), torch.randn(602, 32), torch.randn(64), []
    panels = torch.empty(winograd.gate_panels_shape(64, 32, torch.float32))
    winograd.gate_panels(winograd.transformed(taps), panels)

    def convolve(piece: int, scratch: Scratch) -> None:
        winograd.convolve(panels, h, 100, 1, torch.zeros(600, 64), bias, torch.empty(600, 32), scratch)
        rooms.append(scratch.take("winograd_room", (0,), panels).untyped_storage().nbytes())

    threads.run_pieces(convolve, count, Scratch(), CPU)
    one = winograd.PLANES * compiled.constant("winograd_group") * (32 + panels.shape[3]) * 4
    assert rooms == ([3 * one] if count == 1 else [one] * 3)  # a piece of its own has all threads


@pytest.mark.usefixtures("instructions")
def test_the_callers_autocast_is_off_in_all_pieces() -> None:
    x, out = torch.randn(3, 8, 8), torch.zeros(3, 8, 8)

    def multiply(piece: int, scratch: Scratch) -> None:
        out[piece] = x[piece] @ x[piece]

    with torch.autocast("cpu", torch.bfloat16):
        threads.run_pieces(multiply, 3, Scratch(), CPU)
    torch.testing.assert_close(out, x @ x)
