"""docs/deployment.md: its commands and its lines are executed as they stand there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from flowavenet_plugin import load_vocoder
from flowavenet_plugin.bin import export_onnx
from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder
from flowavenet_plugin.vocoder.loading import save_vocoder

GUIDE = (Path(__file__).parents[1] / "docs" / "deployment.md").read_text(encoding="utf-8")
ONNX, TORCH_EXPORT, STREAM = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.S)
COMMANDS = [shlex.split(line) for line in re.findall(r"^    (python -m .*export_onnx .*)$", GUIDE, flags=re.M)]


@pytest.fixture
def vocoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FloWaveNetVocoder:
    """Return a small vocoder of the guide's hop length, saved where the guide has it, in the folder to work in."""
    torch.manual_seed(0)
    conf = dict(n_block=3, n_flow=2, n_layer=1, filter_size=4, block_per_split=2, upsample_scales=[16, 16])
    made = FloWaveNetVocoder(22050, 256, 5, **conf)
    for parameter in made.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    feats_conf = dict(fs=22050, n_fft=1024, hop_length=256, n_mels=5)
    config = dict(vocoder="flowavenet", vocoder_conf=conf, feats_extract="fbank", feats_extract_conf=feats_conf)
    path = save_vocoder(made, config, tmp_path / "exp" / "voc_x")
    path.rename(path.with_name("valid.loss.best.pth"))
    monkeypatch.chdir(tmp_path)
    return load_vocoder("exp/voc_x/valid.loss.best.pth")


def export(extension: str) -> None:
    """Run the guide's command that writes such a file."""
    (command,) = [words for words in COMMANDS if any(word.endswith(extension) for word in words)]
    export_onnx.main(command[3:])


def check(vocoder: FloWaveNetVocoder, feats: Tensor, noise: object, wav: object) -> None:
    """Compare what the lines made with the vocoder itself."""
    expected = vocoder.inference(feats, noise=torch.as_tensor(noise))
    assert expected.abs().max() > 0.1 and expected.shape == (len(feats) * 256,)
    torch.testing.assert_close(torch.as_tensor(wav), expected, rtol=0, atol=1e-4)


def test_onnx(vocoder: FloWaveNetVocoder) -> None:
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    export(".onnx")
    for frames in (1, 23):
        feats = torch.randn(frames, 5)
        names = dict(onnxruntime=onnxruntime, numpy=np, feats=feats.numpy())
        exec(ONNX, names)
        check(vocoder, feats, names["noise"], names["wav"])


def test_torch_export(vocoder: FloWaveNetVocoder) -> None:
    export(".pt2")
    for frames in (1, 23):
        names = dict(torch=torch, feats=torch.randn(frames, 5))
        program = {}
        exec(TORCH_EXPORT, names, program)
        check(vocoder, names["feats"], program["noise"], program["wav"])


def test_the_package_itself(vocoder: FloWaveNetVocoder) -> None:
    feats, played = torch.randn(50, 5), []
    names = dict(torch=torch, load_vocoder=load_vocoder, pieces_of_feats=feats.split(7), play=played.append)
    exec(STREAM, names)
    expected = vocoder.inference(feats, seed=0, dtype=torch.bfloat16)
    torch.testing.assert_close(torch.cat(played), expected, rtol=0, atol=0.05)
    error = (torch.cat(played) - vocoder.inference(feats, seed=0)).abs().max()
    assert len(played) > 1 and 0 < error < 0.1
