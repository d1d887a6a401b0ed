"""Whole inverses by one launch: lengths of a coarse scale change nothing, and nothing waits for the GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from flowavenet_plugin.flow import FloWaveNet
from flowavenet_plugin.flow.synthesis import PreparedFlow, stack
from flowavenet_plugin.flow.synthesis.graphs import GraphedInverse, bucket
from flowavenet_plugin.kernels.backends import Fused
from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder

SIZES = dict(n_mels=4, n_block=3, n_flow=2, filter_size=8, block_per_split=2, upsample_scales=(2, 4))


def model(**options: object) -> FloWaveNet:
    """Return a small model whose weights all matter."""
    torch.manual_seed(0)
    network = FloWaveNet(**{**SIZES, **options}).eval()
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return network


#: Conditioning at each block's own rate.
PER_BLOCK = dict(cond_channels=3, cond_filter_size=4, first_squeeze=4)


class Recorder:
    """Records as a CUDA graph would: the same function on the same inputs, whatever they hold by then."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Callable[[], Tensor]:
        self.count += 1
        out = function(*inputs)
        return lambda: out.copy_(function(*inputs))


def test_the_scale_of_lengths() -> None:
    sizes = [bucket(frames) for frames in range(1, 5000)]
    assert all(size >= frames for frames, size in enumerate(sizes, 1)) and sizes == sorted(sizes)
    assert all(size - frames < max(32, frames / 8) for frames, size in enumerate(sizes, 1))
    assert len(set(sizes)) < 50 and all(bucket(size) == size for size in set(sizes))


@torch.no_grad()
@pytest.mark.parametrize(
    "options", [dict(), dict(causal=True), dict(upsample_scales=(3, 3)), dict(affine=False), PER_BLOCK], ids=str
)
def test_padding_to_the_scale_changes_nothing(options: dict) -> None:
    flow, recorder = PreparedFlow(model(**options)), Recorder()
    graphs, hop = GraphedInverse(flow, record=recorder), flow.hop_length
    for frames in (31, 5, 32, 40, 7):  # each leaves its values in the buffers
        noise, cond = torch.randn(2, 1, frames * hop), torch.randn(2, 4, frames)
        expected = flow.inverse(noise, cond)
        got = graphs.inverse(noise, cond)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)
        lengths = torch.tensor([frames * hop, frames * hop // 3 + 1])
        again = graphs.inverse(noise, cond, lengths)
        torch.testing.assert_close(again, flow.inverse(noise, cond, lengths), rtol=0, atol=1e-5)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)  # not overwritten by the next
    assert recorder.count == 2


@torch.no_grad()
def test_few_graphs_are_kept_and_long_utterances_need_none() -> None:
    flow, recorder = PreparedFlow(model()), Recorder()
    graphs = GraphedInverse(flow, limit=2, max_frames=200, record=recorder)
    for batch, frames in ((1, 32), (1, 64), (1, 30), (1, 96), (1, 32), (1, 64)):
        graphs.inverse(torch.randn(batch, 1, frames * 8), torch.randn(batch, 4, frames))
    assert recorder.count == 4  # (1, 64) was used longest ago when (1, 96) came
    for batch, frames in ((1, 201), (3, 70)):
        noise, cond = torch.randn(batch, 1, frames * 8), torch.randn(batch, 4, frames)
        torch.testing.assert_close(graphs.inverse(noise, cond), flow.inverse(noise, cond), rtol=0, atol=1e-5)
    assert recorder.count == 4
    with pytest.raises(ValueError, match="33"):
        graphs.inverse(torch.zeros(1, 1, 33), torch.zeros(1, 4, 2))


def product(pre: Tensor, weight: Tensor, *args: object) -> Tensor:
    """Stand for the Triton kernel, which no made-up GPU can run."""
    assert weight.is_contiguous() and pre.shape[1] == 2 * len(weight)
    return args[-1].copy_(torch.mm(pre.chunk(2, dim=1)[0], weight))


def fake_inverse(monkeypatch: pytest.MonkeyPatch, lengths: bool, options: dict) -> tuple[Tensor, bool]:
    """Run an inverse on a made-up GPU: shapes and devices only; reading a value back raises."""
    monkeypatch.setattr(stack, "choose_backend", lambda *_: Fused(product))
    with FakeTensorMode(allow_non_fake_inputs=False), torch.device("cuda"), torch.no_grad():
        flow = PreparedFlow(FloWaveNet(**{**SIZES, **options}).eval())
        fused = all(type(step.stack.weights.backend) is Fused for block in flow.blocks for step in block.steps)
        given = torch.empty(2, dtype=torch.long) if lengths else None
        return flow.inverse(torch.empty(2, 1, 320), torch.empty(2, 4, 40), given), fused


def can_fake_a_gpu() -> bool:
    """Tell whether made-up tensors can be filled with random values; torch 2.6 asks the driver for a generator."""
    try:
        with FakeTensorMode():
            torch.empty(1, device="cuda").uniform_()
    except RuntimeError:
        return False
    return True


@pytest.mark.skipif(not can_fake_a_gpu(), reason="this torch makes up no GPU where there is none")
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("options", [dict(), PER_BLOCK], ids=["shared", "per block"])
def test_nothing_waits_for_the_gpu_nor_mixes_devices(
    monkeypatch: pytest.MonkeyPatch, lengths: bool, options: dict
) -> None:
    out, fused = fake_inverse(monkeypatch, lengths, options)
    assert out.shape == (2, 1, 320) and out.device.type == "cuda" and fused
    with pytest.raises(DataDependentOutputException), FakeTensorMode():
        torch.empty(2, device="cuda").max().item()  # the test would see it


def test_graphs_are_for_gpus_and_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    conf = {key: value for key, value in SIZES.items() if key != "n_mels"}
    vocoder = FloWaveNetVocoder(8000, 8, 4, **conf).eval()
    feats = torch.randn(9, 4)
    expected = vocoder.inference(feats, seed=1)
    vocoder.cuda_graphs = True
    assert torch.equal(vocoder.inference(feats, seed=1), expected)  # on a CPU as before
    flow, recorder = vocoder.prepare(), Recorder()
    monkeypatch.setattr(flow, "device", torch.device("cuda"))
    flow._graphs = GraphedInverse(PreparedFlow(vocoder.flow), record=recorder)
    torch.testing.assert_close(vocoder.inference(feats, seed=1), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(vocoder.inference_batch([feats], seeds=[1])[0], expected, rtol=0, atol=1e-5)
    assert recorder.count == 1


def test_threads_take_turns() -> None:
    """Between its inputs' copies and its output's a graph is one thread's: others would hear that one's speech."""
    flow, hop = PreparedFlow(model()), 8

    def record(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Callable[[], Tensor]:
        out = function(*inputs)

        def replay() -> Tensor:
            time.sleep(0.001)  # others get their chance
            out.copy_(function(*inputs))
            time.sleep(0.001)
            return out

        return replay

    graphs = GraphedInverse(flow, record=record)
    items = [(torch.randn(1, 1, frames * hop), torch.randn(1, 4, frames)) for frames in (5, 30, 20, 9)]
    expected = [flow.inverse(*item) for item in items]

    def speak(i: int) -> None:
        got = graphs.inverse(*items[i % 4])
        torch.testing.assert_close(got, expected[i % 4], rtol=0, atol=1e-5)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(speak, range(60)))


class CurrentDevice:
    """Stands for ``torch.cuda.device`` where there is no GPU, and knows the current one."""

    now = 0

    def __init__(self, device: torch.device) -> None:
        self.wanted = device.index

    def __enter__(self) -> None:
        self.before, CurrentDevice.now = CurrentDevice.now, self.wanted

    def __exit__(self, *_: object) -> None:
        CurrentDevice.now = self.before


def test_replays_happen_on_the_device_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams, recordings and kernels belong to the current device, which need not be the model's."""
    flow, seen = PreparedFlow(model()), []
    graphs = GraphedInverse(flow, record=lambda *_: lambda: seen.append(CurrentDevice.now) or torch.zeros(1, 1, 256))
    inputs, _ = graphs._graph(1, 32)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", CurrentDevice)
    monkeypatch.setattr(flow, "device", torch.device("cuda", 1))
    graphs.inverse(torch.ones(1, 1, 80), torch.ones(1, 4, 10))
    assert seen == [1] and CurrentDevice.now == 0
    assert inputs[0].sum() == 80 and inputs[1].sum() == 40 and inputs[2].tolist() == [80]


@torch.no_grad()
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: graphs can't be recorded")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recorded_graphs_give_the_same_sound(dtype: torch.dtype) -> None:
    flow = PreparedFlow(model(filter_size=32).cuda(), dtype)
    for batch, frames in ((1, 30), (1, 31), (2, 40), (1, 30)):
        noise, cond = torch.randn(batch, 1, frames * 8).cuda(), torch.randn(batch, 4, frames).cuda()
        tolerance = 1e-4 if dtype == torch.float32 else 5e-2
        torch.testing.assert_close(flow.graphs.inverse(noise, cond), flow.inverse(noise, cond), rtol=0, atol=tolerance)
