"""Memory that is used again, and only when nothing refers to it any more."""

from __future__ import annotations

import contextlib
import copy
import multiprocessing
import os
import pickle
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch

from flowavenet_plugin.flow import FloWaveNet
from flowavenet_plugin.kernels import scratch as scratch_module
from flowavenet_plugin.kernels.scratch import LARGE, Memory, Scratch

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes can't be forked here")

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


def forked(child: Callable[[], None]) -> int:
    """Run a function in a forked child; return its status."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            torch.set_num_threads(1)  # OpenMP's threads don't live in a forked child
            child()
            status = 0
        finally:
            os._exit(status)  # no handler of the parent's
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


@needs_fork
def test_a_forked_child_writes_into_memory_of_its_own() -> None:
    memory, like = Memory(), torch.zeros(0, dtype=torch.float32)
    held, freed = memory.empty((SIZE,), like).fill_(1), memory.empty((SIZE,), like)
    del freed

    def child() -> None:
        assert held[0] == 1
        held.fill_(2)
        memory.empty((SIZE,), like).fill_(3)

    before = memory.empty((SIZE,), like).fill_(4)
    assert forked(child) == 0
    assert (held == 1).all() and (before == 4).all()


def train_in_a_child() -> None:
    """Compare gradients before and after a step in a child; for a process of its own."""
    torch.manual_seed(0)
    net = FloWaveNet(n_mels=16, n_block=2, n_flow=1, n_layer=2, filter_size=16, upsample_scales=(4, 4))
    for parameter in net.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    wav, cond = torch.randn(2, 1, 3200), torch.randn(2, 16, 200)
    with mock.patch.object(scratch_module, "LARGE", 2**10):
        z, logdet = net(wav, cond)
        (0.5 * z.square().sum() - logdet.sum()).backward()

        def child() -> None:
            net.zero_grad()
            (7 * net(wav, cond)[0].square().sum()).backward()

        trained = [parameter for parameter in net.parameters() if parameter.grad is not None]
        kept = [parameter.grad.clone() for parameter in trained]
        assert trained and forked(child) == 0
    assert all(torch.equal(parameter.grad, copy) for parameter, copy in zip(trained, kept, strict=True))


@needs_fork
def test_a_childs_training_step_leaves_the_parents_gradients() -> None:
    """In a fresh process: once PyTorch has threads for gradients, which other tests make, no child may have any."""
    fresh = multiprocessing.get_context("spawn").Process(target=train_in_a_child)
    fresh.start()
    fresh.join()
    assert fresh.exitcode == 0


@needs_fork
def test_a_lock_that_another_thread_held_at_the_fork_stops_no_child() -> None:
    memory, like = Memory(), torch.zeros(0, dtype=torch.float32)
    with memory._lock:
        assert forked(lambda: memory.empty((SIZE,), like).fill_(1)) == 0
    memory.empty((SIZE,), like)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="no /proc/self/smaps")
def test_memory_is_private_and_linux_is_asked_for_large_pages() -> None:
    made = Memory().empty((4 * SIZE,), torch.zeros(0, dtype=torch.float32))
    place, mine = made.data_ptr(), []
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if match := re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) ", line):
            mine = [match[3]] if int(match[1], 16) <= place < int(match[2], 16) else []
        elif mine and line.startswith("VmFlags:"):
            assert mine == ["rw-p"] and "hg" in line.split()
            return
    pytest.fail("the memory isn't mapped")


def test_threads_never_share_memory() -> None:
    memory, like, seen = Memory(), torch.zeros(0, dtype=torch.float32), []

    def take(number: int) -> None:
        for _ in range(50):
            own = memory.empty((SIZE // 4,), like).fill_(number)
            seen.append(bool((own == number).all()))

    workers = [threading.Thread(target=take, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(seen) == 200 and all(seen)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_types_and_devices_of_a_process_change_no_buffer(dtype: torch.dtype) -> None:
    memory, like = Memory(), torch.zeros(0, dtype=torch.float32)
    with torch.device("meta"), default_dtype(dtype):
        for made in (memory.empty((SIZE,), like), Scratch(memory).take("a", (3,), like)):
            assert made.dtype == torch.float32 and made.device.type == "cpu"


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Change the type of tensors for which none is said."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    yield
    torch.set_default_dtype(before)


def test_small_tensors_and_copies_of_a_memory_share_nothing() -> None:
    memory, like = Memory(), torch.zeros(0, dtype=torch.bfloat16)
    assert memory.empty((4, 5), like).dtype == torch.bfloat16 and not memory._pages
    large = memory.empty((SIZE, 2), like)
    assert large.shape == (SIZE, 2) and large.dtype == torch.bfloat16 and memory._pages
    assert not copy.deepcopy(memory)._pages and not pickle.loads(pickle.dumps(memory))._pages
