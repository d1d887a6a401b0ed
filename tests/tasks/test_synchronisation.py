"""Nothing in a training step waits for the device: only ESPnet2's trainer does, to log and to look at the gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import tiny_corpus
from flowavenet_plugin.flow.transforms import ActNorm
from flowavenet_plugin.tasks.espnet_model import ESPnetVocoderModel
from flowavenet_plugin.tasks.segments import SegmentCollate
from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder

HOP, FRAMES = tiny_corpus.HOP, 4
aten = torch.ops.aten
#: Operators whose result, or its shape, the host needs.
WAITING = (aten._local_scalar_dense, aten.is_nonzero, aten.equal, aten.nonzero, aten.masked_select, aten.unique_dim)


class Waits(TorchDispatchMode):
    """Notes each operator that would wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: torch._ops.OpOverload, types: object, args: tuple = (), kwargs: dict | None = None
    ) -> object:
        """Run the operator; boolean indices count as well."""
        indices = args[1] if func.overloadpacket in (aten.index, aten.index_put, aten.index_put_) else ()
        if func.overloadpacket in WAITING or any(i is not None and i.dtype == torch.bool for i in indices):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def build(**options: object) -> ESPnetVocoderModel:
    torch.manual_seed(0)
    conf = {**tiny_corpus.VOCODER_CONF, **options}
    vocoder = FloWaveNetVocoder(fs=tiny_corpus.FS, hop_length=HOP, n_mels=tiny_corpus.N_MELS, **conf)
    return ESPnetVocoderModel(vocoder).train()


def segments(frames: int) -> dict[str, Tensor]:
    """Return a batch as the loader makes it, of one long utterance and one of ``frames`` frames."""
    rng = np.random.default_rng(0)
    examples = [
        (f"u{n}", dict(speech=rng.normal(size=n * HOP).astype("f"), feats=rng.normal(size=(n, 6)).astype("f")))
        for n in (9, frames)
    ]
    return SegmentCollate(HOP, FRAMES, train=True)(examples)[1]


def waits(model: ESPnetVocoderModel, batch: dict[str, Tensor]) -> list[str]:
    """Return what waited in forward and backward pass."""
    with Waits() as mode:
        loss, _, _ = model(**batch)
        loss.backward()
    return mode.found


#: Whatever is trained, nothing may wait.
OPTIONS = [dict(), dict(reversible=False), dict(prediction_order=8)]


@pytest.mark.parametrize("options", OPTIONS)
def test_a_step_on_whole_segments_reads_no_value(options: dict[str, object]) -> None:
    model, batch = build(**options), segments(5)
    assert "speech_lengths" not in batch
    assert set(waits(model, batch)) == {"aten._local_scalar_dense.default"}  # ActNorm asks whether it has started
    assert waits(model, batch) == []
    model.load_state_dict(model.state_dict())
    before = [parameter.clone() for parameter in model.parameters()]
    assert len(waits(model, batch)) == sum(isinstance(module, ActNorm) for module in model.modules())
    assert waits(model, batch) == []
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))  # it wasn't started again


def test_what_waits_is_noticed_in_both_passes() -> None:
    class Reading(torch.autograd.Function):
        forward = staticmethod(lambda ctx, x: x.clone())
        backward = staticmethod(lambda ctx, grad: grad * grad.abs().sum().item())

    x = torch.ones(3, requires_grad=True)
    with Waits() as mode:
        (x[x > 0].sum() + 1).backward()
    assert any("index" in name for name in mode.found)
    with Waits() as mode:
        Reading.apply(x).sum().backward()
    assert mode.found == ["aten._local_scalar_dense.default"]


def on_gpu(model: ESPnetVocoderModel) -> ESPnetVocoderModel:
    """Move a model to a GPU that needn't be there: inside of :class:`FakeTensorMode`."""
    for module in model.modules():
        if isinstance(module, ActNorm):
            module.started = True
        for tensors, kind in ((module._parameters, torch.nn.Parameter), (module._buffers, lambda tensor: tensor)):
            tensors.update({k: kind(torch.empty(v.shape, device="cuda")) for k, v in tensors.items() if v is not None})
    return model


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("frames", [5, 3], ids=["whole", "padded"])
def test_a_forward_pass_on_a_gpu_reads_no_value(frames: int, options: dict[str, object]) -> None:
    """Fake tensors refuse to tell values that the host can't know."""
    model, batch = build(**options), segments(frames)
    assert ("speech_lengths" in batch) == (frames == 3)
    with FakeTensorMode(allow_non_fake_inputs=True):
        loss, stats, weight = on_gpu(model)(
            **{k: torch.empty(v.shape, dtype=v.dtype, device="cuda") for k, v in batch.items()}
        )
        assert loss.requires_grad and all(v.device.type == "cuda" for v in (loss, weight, *stats.values()))
        with pytest.raises(DataDependentOutputException):
            loss.item()


def test_padding_that_is_not_there_costs_no_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = build(), segments(5)
    seen: list[object] = []
    plain: Callable = model.vocoder.flow.forward
    monkeypatch.setattr(
        model.vocoder.flow, "forward", lambda x, cond, lengths: (seen.append(lengths), plain(x, cond))[1]
    )
    loss, _, weight = model(**batch)
    assert seen == [None] and weight.item() == 2 * FRAMES * HOP
    lengths = dict(speech_lengths=torch.tensor([FRAMES * HOP] * 2), feats_lengths=torch.tensor([FRAMES] * 2))
    torch.manual_seed(1)
    one = model(**batch)[0]
    torch.manual_seed(1)
    assert torch.equal(model(**batch, **lengths)[0], one)
