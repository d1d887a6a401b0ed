"""Pieces in threads: each is done once, with its own buffers, and errors come out."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from flowavenet_plugin.flow import FloWaveNet
from flowavenet_plugin.flow.prepared import PreparedFlow
from flowavenet_plugin.kernels import compiled, threads
from flowavenet_plugin.kernels.scratch import Scratch

CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(compiled.functions() is None, reason="no C compiler (cc), or FLOWAVENET_FUSED=0")


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@needs_compiler
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
