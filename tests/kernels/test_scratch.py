"""Memory that is used again, and only when nothing refers to it any more."""

from __future__ import annotations

import copy
import pickle

import torch

from flowavenet_plugin.kernels.scratch import LARGE, Memory, Scratch

SIZE = LARGE  # floats: four times as many bytes


def test_scratch_hands_out_memory_again_unless_it_is_too_small_or_of_another_type() -> None:
    scratch, like = Scratch(), torch.zeros(0)
    first = scratch.take("a", (2, 3), like)
    assert scratch.take("a", (3, 2), like).data_ptr() == scratch.take("a", (4,), like).data_ptr() == first.data_ptr()
    assert scratch.take("b", (2, 3), like).data_ptr() != first.data_ptr()
    larger = scratch.take("a", (3, 3), like)
    assert larger.shape == (3, 3) and larger.data_ptr() != first.data_ptr()
    assert scratch.take("a", (3, 3), like.double()).dtype == torch.float64


def test_memory_comes_back_when_nothing_refers_to_it_and_not_before() -> None:
    memory, like = Memory(), torch.zeros(0)
    first = memory.empty((SIZE,), like)
    place = first.data_ptr()
    assert place % 64 == 0 and first.is_contiguous()
    part = first[10:20]  # a view keeps it
    del first
    other = memory.empty((SIZE,), like)
    assert other.data_ptr() != place
    del part
    assert memory.empty((2, SIZE // 2), like).data_ptr() == place


def test_a_parameters_gradient_keeps_its_memory() -> None:
    memory, parameter = Memory(), torch.nn.Parameter(torch.zeros(SIZE))
    parameter.grad = memory.empty((SIZE,), parameter)
    place = parameter.grad.data_ptr()
    assert memory.empty((SIZE,), parameter).data_ptr() != place
    parameter.grad = None
    assert memory.empty((SIZE,), parameter).data_ptr() == place


def test_memory_that_no_turn_uses_is_given_back() -> None:
    memory, like = Memory(), torch.zeros(0)
    kept = memory.empty((SIZE,), like)
    for _ in range(Memory.KEPT_TURNS + 1):
        memory.turn()
        memory.empty((2 * SIZE,), like)
    assert list(memory._pages) == [8 * SIZE]
    kept.fill_(1)  # still its holder's own
    assert memory.empty((SIZE,), like).data_ptr() != kept.data_ptr()


def test_small_tensors_and_copies_of_a_memory_share_nothing() -> None:
    memory, like = Memory(), torch.zeros(0, dtype=torch.bfloat16)
    assert memory.empty((4, 5), like).dtype == torch.bfloat16 and not memory._pages
    large = memory.empty((SIZE, 2), like)
    assert large.shape == (SIZE, 2) and large.dtype == torch.bfloat16 and memory._pages
    assert not copy.deepcopy(memory)._pages and not pickle.loads(pickle.dumps(memory))._pages
