"""What the caller has set in PyTorch changes no sample, no filter and no log-determinant, in any preset."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy.signal import lfilter
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from flowavenet_plugin.data.features import build_feats_extract
from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder
from flowavenet_plugin.vocoder.settings import VocoderSettings

ROOT = Path(__file__).parents[2]
PRESETS = sorted(path for folder in (ROOT, *ROOT.glob("egs/*/voc1")) for path in folder.glob("conf/train_*.yaml"))
FRAMES, NARROW = 6, 16
#: nats/sample: how far the rounding of WaveNets that all say something may move the loss.
BOUNDS = {torch.bfloat16: 2e-3, torch.float16: 1e-4}


@pytest.fixture(scope="module", params=PRESETS, ids=lambda path: path.stem)
def preset(request: pytest.FixtureRequest) -> FloWaveNetVocoder:
    """Return a preset's vocoder, small, whose parameters all matter, but for its networks': they predict zero."""
    conf = yaml.safe_load(request.param.read_text()).get("vocoder_conf", {})
    conf.update(n_flow=2, filter_size=NARROW, cond_filter_size=NARROW)
    hop = VocoderSettings(**conf).hop_length
    torch.manual_seed(0)
    made = FloWaveNetVocoder(22050, hop, 80, **conf)
    for name, parameter in made.named_parameters():
        if "actnorm" in name or "factors" in name or "prediction.out" in name:
            parameter.data.add_(0.02 * torch.randn_like(parameter))
        if name.startswith("reader.pitch."):
            parameter.data.zero_()
    return made.eval()


def speech(vocoder: FloWaveNetVocoder) -> tuple[Tensor, Tensor]:
    """Return something like a vowel, twice, and its features."""
    size = FRAMES * vocoder.hop_length
    source = 0.01 * np.random.default_rng(0).standard_normal(2 * size)
    source[::147] += 1
    for formant, width in ((500, 60), (1500, 90), (2500, 120), (3500, 150)):
        radius, angle = np.exp(-np.pi * width / 22050), 2 * np.pi * formant / 22050
        source = lfilter([1 - radius], [1, -2 * radius * np.cos(angle), radius**2], source)
    wav = torch.from_numpy(0.3 * source / np.abs(source).max()).float().view(2, size)
    sizes = dict(fs=22050, n_fft=4 * vocoder.hop_length, hop_length=vocoder.hop_length, n_mels=80)
    feats, _ = build_feats_extract("fbank", sizes)(wav, torch.tensor([size, size]))
    return wav, feats[:, :FRAMES]


class RoundedProducts(TorchDispatchMode):
    """Round what products of float32 get to 10 bits, as TF32 does on a GPU."""

    OPERATORS = ("mm", "bmm", "addmm", "baddbmm", "addmv", "mv", "dot", "convolution", "_convolution")

    def __torch_dispatch__(self, func: object, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        """Run an operator."""
        if func.overloadpacket.__name__ in self.OPERATORS:
            args = tuple(self._rounded(arg) for arg in args)
        return func(*args, **(kwargs or {}))

    @staticmethod
    def _rounded(arg: object) -> object:
        if isinstance(arg, Tensor) and arg.dtype == torch.float32:
            return (arg.view(torch.int32) & -(2**13)).view(torch.float32) if arg.is_contiguous() else arg.half().float()
        return arg


@contextlib.contextmanager
def default_float64() -> object:
    """Make tensors of float64 where no type is stated."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


SETTINGS: dict[str, Callable[[], contextlib.AbstractContextManager]] = {
    "bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "float16": lambda: torch.autocast("cpu", torch.float16),
    "rounded products": RoundedProducts,
    "float64 by default": default_float64,
    "inference mode": torch.inference_mode,
}


@torch.no_grad()
def test_the_settings_of_the_caller_reach_the_wavenets_only(preset: FloWaveNetVocoder) -> None:
    wav, feats = speech(preset)
    expected = preset.loss(wav, feats, None, None)[0]
    for name, setting in SETTINGS.items():
        with setting():
            got = preset.loss(wav, feats, None, None)[0]
        assert got.dtype == torch.float32 and torch.equal(got, expected), name


@torch.no_grad()
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
def test_autocast_moves_the_loss_little(preset: FloWaveNetVocoder, dtype: torch.dtype) -> None:
    vocoder, (wav, feats) = copy.deepcopy(preset), speech(preset)
    for name, parameter in vocoder.flow.named_parameters():
        if ".end." in name:
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    expected = vocoder.loss(wav, feats, None, None)[0]
    with torch.autocast("cpu", dtype):
        got = vocoder.loss(wav, feats, None, None)[0]
    assert (got - expected).abs() < BOUNDS[dtype]
    assert dtype != torch.bfloat16 or got != expected  # they do run in it
