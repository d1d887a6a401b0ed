"""The synthesis benchmark: the figures that it prints, and the parts that they rest on."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import tiny_corpus
import tiny_voice
from flowavenet_plugin.flow import FloWaveNet
from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder

FOLDER = Path(__file__).parents[2] / "benchmarks"
TINY = dict(n_block=2, n_flow=2, filter_size=8)


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """Import the scripts as Python runs them: with their folder on the path."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return {name: importlib.import_module(name) for name in ("synthesis", "precision", "throughput")}


def run(*options: str) -> str:
    command = [sys.executable, str(FOLDER / "synthesis.py"), *options]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_figures_of_a_tiny_network() -> None:
    options = "--n_block 2 --n_flow 2 --filter_size 8 --seconds 0.2 --threads 1 --quick --systems float32 bfloat16"
    figures = json.loads(run(*options.split(), "--batches", "2", "--peak_size", "64").splitlines()[-1])
    assert figures["utterance_seconds"] == pytest.approx(17 * 256 / 22050)
    for name in ("float32", "bfloat16"):
        assert figures[f"{name}_rtf"] == figures["seconds"][name] / figures["utterance_seconds"] > 0
        (row,) = figures["batches"][name]
        assert row["samples_per_second"] == pytest.approx(2 * 17 * 256 / row["seconds"])
        share = row["samples_per_second"] * figures["flops_per_sample"] / figures["bfloat16_peak_flops"]
        assert row["batch"] == 2 and row["share_of_bfloat16_peak"] == pytest.approx(share)
    assert set(figures["peak_rss_bytes"]) == {"float32", "bfloat16"}
    (row,) = figures["precision"]
    assert row["strength"] == 0.1 and row["float32_snr"] > 100 > row["bfloat16_snr"] > 20
    assert row["float32_lsd"] < row["bfloat16_lsd"] < 3


def test_help_and_options_that_belong_together() -> None:
    assert all(word in run("--help") for word in ("--original", "--quick", "--long_seconds", "--threads", "--device"))
    with pytest.raises(subprocess.CalledProcessError):
        run("--model_file", "x.pth")


def test_ratios_and_their_sides(scripts: dict[str, ModuleType]) -> None:
    figures = dict(
        utterance_seconds=2.0,
        seconds=dict(original=8.0, float32=4.0, bfloat16=2.0, hifigan=1.0, griffin_lim=0.5),
        peak_rss_bytes=dict(original=3000, float32=1500, bfloat16=1000),
    )
    scripts["synthesis"].add_ratios(figures)
    expected = dict(float32_speedup=2.0, bfloat16_speedup=4.0, bfloat16_rtf=1.0, hifigan_rtf=0.5, peak_memory_ratio=0.5)
    assert {key: figures[key] for key in expected} == expected and "hifigan_speedup" not in figures


@torch.no_grad()
@pytest.mark.parametrize("name", ["float32", "bfloat16_graphs", "hifigan", "griffin_lim"])
def test_each_system_makes_sound_of_the_utterance(scripts: dict[str, ModuleType], name: str) -> None:
    synthesis, args = scripts["synthesis"], argparse.Namespace(**TINY, device="cpu", original=None)
    noise, cond = synthesis.inputs(0.1, "cpu")
    made = synthesis.system("bfloat16" if name == "bfloat16_graphs" else name, args, False)(noise, cond)
    assert abs(made.numel() - noise.numel()) <= 256 and torch.isfinite(made).all()
    if name == "bfloat16_graphs":  # the same network, to be recorded on a GPU
        assert synthesis.system(name, args, False).__func__.__qualname__ == "GraphedInverse.inverse"


@torch.no_grad()
def test_operations_are_counted(scripts: dict[str, ModuleType]) -> None:
    flow = FloWaveNet(n_mels=4, n_block=3, n_flow=2, filter_size=8, block_per_split=2, upsample_scales=(2, 4)).eval()
    count = scripts["throughput"].flops_per_sample(flow)
    with FlopCounterMode(display=False) as counter:
        flow.inverse_by_modules(torch.randn(1, 1, 80), torch.randn(1, 4, 10))
        convolutions = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        flow.upsampler(torch.randn(1, 4, 10))
        convolutions -= counter.get_total_flops()
    assert count == convolutions / 80
    paper = FloWaveNet(n_mels=80).to("meta")
    assert scripts["throughput"].flops_per_sample(paper) * 22050 == pytest.approx(371e9, rel=0.01)
    assert scripts["throughput"].peak_flops("cpu", torch.float32, 32, 2) > 1e5


def test_precision_on_trained_weights(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    corpus, model_file = tiny_corpus.make_corpus(tmp_path / "data", n_utts=3), tiny_voice.make_voice(tmp_path / "model")
    given = str(model_file), str(corpus / "feats.scp"), 0.2, 2, "cpu", scripts["synthesis"].OURS
    rows = scripts["precision"].trained_precision(*given)
    assert [row["utterance"] for row in rows] == ["utt0", "utt1"]
    for row in rows:
        assert row["float32_snr"] > 100 > row["bfloat16_snr"] > 20 and row["float32_lsd"] < row["bfloat16_lsd"] < 3


def test_tones_of_a_model_and_places_of_scales(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tones = importlib.import_module("tones")
    corpus, model_file = tiny_corpus.make_corpus(tmp_path / "data", n_utts=2), tiny_voice.make_voice(tmp_path / "model")
    options = f"--model_file {model_file} --dump {corpus} --strengths 0 1 --temperatures 0.5 --quiet_frames 128"
    monkeypatch.setattr(sys, "argv", ["tones.py", *options.split(), "--threads", "1"])
    tones.main()
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    names = ["natural", *(f"{what}, denoiser {s}" for s in (0, 1) for what in ("quiet mel", "speech"))]
    assert [row["what"] for row in rows] == [*names, "speech, temperature 0.5"]
    natural, hum, speech, clean_hum, _, quieter = rows
    assert natural["log_spectral_distance"] == 0 < speech["log_spectral_distance"]
    assert clean_hum["level"] < hum["level"] - 3 and quieter["level"] < speech["level"]
    assert all(row["tones_measured"] == 1 for row in rows)  # a column of 4 samples: fs / 4

    vocoder = FloWaveNetVocoder(8000, 8, 4, n_block=4, n_flow=1, filter_size=4, block_per_split=1, upsample_scales=[8])
    scales = tones.scale_of_places(vocoder.eval())
    assert sorted(scales.tolist()) == [0, 0, 0, 0, 1, 1, 2, 3]
    kept = [block.kept for block in vocoder.flow.plan[:3]]
    place = scales.tolist().index(3)
    assert [place >> bit & 1 for bit in range(3)] == kept
