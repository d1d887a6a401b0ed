"""Exported files compute what the vocoder computes, for any length."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from flowavenet_plugin import load_vocoder
from flowavenet_plugin.bin import export_onnx
from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder
from flowavenet_plugin.vocoder.inversion.pitch import Pitch
from flowavenet_plugin.vocoder.loading import save_vocoder
from flowavenet_plugin.vocoder.source import at

can_torch_export = "prefer_deferred_runtime_asserts_over_guards" in signature(torch.export.export).parameters
needs_torch_export = pytest.mark.skipif(not can_torch_export, reason="torch.export of free lengths needs torch 2.9")

FEATS_CONF = dict(fs=8000, n_fft=64, hop_length=12, n_mels=6, fmin=0, fmax=4000)


def save(folder: Path, scales: list[int], **options: int) -> Path:
    """Write a small vocoder whose weights all matter."""
    torch.manual_seed(0)
    conf = dict(n_block=3, n_flow=2, n_layer=2, filter_size=4, block_per_split=2, upsample_scales=scales, **options)
    hop = scales[0] * scales[1]
    made = FloWaveNetVocoder(8000, hop, 6, **conf)
    for parameter in made.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    made.set_feats_stats(torch.full((6,), -2.0), torch.full((6,), 0.5))
    feats_conf = {**FEATS_CONF, "hop_length": hop}
    config = dict(vocoder="flowavenet", vocoder_conf=conf, feats_extract="fbank", feats_extract_conf=feats_conf)
    save_vocoder(made, config, folder)
    return folder / "model.pth"


@pytest.mark.parametrize(
    "kind, name, scales, order",
    [
        ("onnx", "x.onnx", [4, 4], 0),
        ("onnx", "x.onnx", [3, 4], 0),
        ("onnx", "x.onnx", [3, 4], 5),
        ("onnx", "x.onnx", [4, 4], 8),
        pytest.param("torch_export", "x.pt2", [4, 4], 0, marks=needs_torch_export),
        pytest.param("torch_export", "x.pt2", [4, 4], 4, marks=needs_torch_export),
    ],
)
def test_the_file_is_the_vocoder(tmp_path: Path, kind: str, name: str, scales: list[int], order: int) -> None:
    if kind == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    model_file, output = save(tmp_path, scales, prediction_order=order), tmp_path / "made" / name
    export_onnx.main(["--model_file", str(model_file), "--output", str(output), "--format", kind])
    run = export_onnx.run_onnx if kind == "onnx" else export_onnx.run_torch_export
    vocoder = load_vocoder(model_file)
    for frames in (1, 2, 37):
        inputs = export_onnx.example(vocoder, frames)
        expected = vocoder.inference(**inputs)
        torch.testing.assert_close(run(output, **inputs), expected, rtol=0, atol=1e-4)
        hop, whole = vocoder.hop_length, len(inputs["noise"])
        for size in {0, 1, hop, (frames - 1) * hop, whole - 1, whole + 1, whole + hop} - {whole}:
            with pytest.raises(Exception, match=r"(?i)reshape|shape|bounds|expected|guard|assertion|concat|broadcast"):
                run(output, **(inputs | dict(noise=torch.zeros(size))))
    assert [path.name for path in output.parent.iterdir()] == [name]


@needs_torch_export
def test_what_differs_is_refused_and_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_onnx, "run_torch_export", lambda path, feats, noise: noise + 1)
    command = ["--model_file", str(save(tmp_path, [4, 4])), "--output", str(tmp_path / "o" / "x.pt2")]
    with pytest.raises(SystemExit) as stop:
        export_onnx.main([*command, "--format", "torch_export"])
    assert "differs" in str(stop.value.code) and not list((tmp_path / "o").iterdir())


@needs_torch_export
def test_a_hop_that_torch_export_cannot_do_is_refused(tmp_path: Path) -> None:
    command = ["--model_file", str(save(tmp_path, [3, 4])), "--output", str(tmp_path / "x.pt2")]
    with pytest.raises(SystemExit) as stop:
        export_onnx.main([*command, "--format", "torch_export"])
    assert "multiple of 8, not 12" in str(stop.value.code)


def test_a_torch_that_cannot_do_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(module: torch.nn.Module, args: tuple, *, dynamic_shapes: dict, strict: bool) -> None:
        raise AssertionError("not to be called")

    monkeypatch.setattr(torch, "export", SimpleNamespace(export=export))
    command = ["--model_file", str(save(tmp_path, [4, 4])), "--output", str(tmp_path / "o" / "x.pt2")]
    with pytest.raises(SystemExit) as stop:
        export_onnx.main([*command, "--format", "torch_export"])
    assert f"needs torch 2.9 or later, this is {torch.__version__}" in str(stop.value.code)
    assert not (tmp_path / "o" / "x.pt2").exists()


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        export_onnx.main(["--model_file", str(tmp_path / "gone.pth"), "--output", str(tmp_path / "x.onnx")])
    assert "gone.pth" in str(stop.value.code)


@pytest.mark.parametrize("channels", [0, 3])
def test_pulses_are_made_of_a_pitch_that_is_given(tmp_path: Path, channels: int) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    conf = dict(prediction_order=4, source="pulses", mel_range=[0.0, 4000.0], reader_channels=channels)
    model_file, output = save(tmp_path, [4, 4], **conf), tmp_path / "x.onnx"
    export_onnx.main(["--model_file", str(model_file), "--output", str(output)])
    vocoder = load_vocoder(model_file)
    source = vocoder.tables().source
    for frames in (1, 23):
        inputs = export_onnx.example(vocoder, frames)
        feats, noise, hertz, voiced = inputs.values()
        latent, _ = source.of_pitch(Pitch(hertz[None], voiced[None]), torch.zeros(1, 1, dtype=torch.float64))
        with torch.no_grad():
            feats = vocoder.aim(feats)
            cond = vocoder.normalize(feats)[None]
            residual = vocoder.flow.inverse(at(latent, noise[None], 1.0)[:, None], cond.mT)[:, 0]
            expected = vocoder.prediction.inverse(residual, feats[None], cond)[0]
        torch.testing.assert_close(export_onnx.run_onnx(output, **inputs), expected, rtol=0, atol=1e-4)
    for name in ("hertz", "voiced"):
        for size in (0, 1, 22, 24):
            with pytest.raises(Exception, match=r"(?i)reshape|bounds|concat"):
                export_onnx.run_onnx(output, **(inputs | {name: torch.ones(size)}))
    unvoiced = export_onnx.run_onnx(output, **(inputs | dict(voiced=torch.zeros(23))))
    assert not torch.allclose(unvoiced, expected, atol=1e-3)


@needs_torch_export
def test_pulses_that_torch_export_cannot_do_are_refused(tmp_path: Path) -> None:
    model_file = save(tmp_path, [4, 4], prediction_order=4, source="pulses", mel_range=[0.0, 4000.0])
    with pytest.raises(SystemExit) as stop:
        export_onnx.main(
            ["--model_file", str(model_file), "--output", str(tmp_path / "x.pt2"), "--format", "torch_export"]
        )
    assert "--format onnx can" in str(stop.value.code)
