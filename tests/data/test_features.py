"""Features equal those of ESPnet2 and of the original code, and fit their audio."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import torch
from espnet2.tts.feats_extract.log_mel_fbank import LogMelFbank

from flowavenet_plugin.data import features
from flowavenet_plugin.data.features import OriginalMel, build_feats_extract, extract, full_settings
from flowavenet_plugin.data.scp import read_audio

CLIPS = Path(__file__).resolve().parents[3] / "shared/data/ljspeech_mini/wavs"
LJSPEECH = {"fs": 22050, "n_fft": 1024, "hop_length": 256, "win_length": 1024, "n_mels": 80, "fmin": 80, "fmax": 7600}
SETTINGS = [
    LJSPEECH,
    {"fs": 16000, "n_fft": 1024, "hop_length": 200, "win_length": 800},
    {"fs": 24000, "n_fft": 2048, "hop_length": 300, "win_length": 1200, "fmax": None},
    {"fs": 44100, "n_fft": 2048, "hop_length": 512, "fmin": None, "fmax": 16000},
]


def tone(samples: int, fs: int = 22050, seed: int = 0) -> np.ndarray:
    """A harmonic tone in noise, which no two seeds share."""
    rng = np.random.default_rng(seed)
    time = np.arange(samples) / fs
    wav = sum(np.sin(2 * np.pi * k * rng.uniform(100, 300) * time) / k for k in range(1, 20))
    return (0.2 * wav + 0.01 * rng.normal(size=samples)).astype(np.float32)


def real_clips() -> list[Any]:
    """Some of LJSpeech's clips, or one skipped case that says why there are none."""
    if not CLIPS.is_dir():
        return [pytest.param("", marks=pytest.mark.skip(reason=f"no real clips at {CLIPS}"))]
    return sorted(path.stem for path in CLIPS.glob("*.wav"))[::4]


def espnet_feats(wav: np.ndarray, settings: dict[str, Any]) -> np.ndarray:
    """What ESPnet2 itself computes."""
    feats, lengths = LogMelFbank(**settings)(torch.from_numpy(wav)[None], torch.tensor([len(wav)]))
    assert lengths.tolist() == [feats.shape[1]]
    return feats[0].numpy()


def original_feats(wav: np.ndarray) -> np.ndarray:
    """The original's preprocessing, in librosa's words."""
    wav = wav / np.abs(wav).max() * 0.999
    mel = librosa.feature.melspectrogram(
        y=wav.astype(np.float64),
        sr=22050,
        n_fft=1024,
        hop_length=256,
        n_mels=80,
        fmin=125,
        fmax=7600,
        pad_mode="reflect",
    ).T
    return np.clip((20 * np.log10(np.maximum(1e-4, mel)) - 20 + 100) / 100, 0, 1)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: f"{settings['fs']}")
@pytest.mark.parametrize("samples", [1100, 20000, 20480])
def test_fbank_is_espnet2s(settings: dict[str, Any], samples: int) -> None:
    wav = tone(samples, settings["fs"])
    kept, feats = extract(build_feats_extract("fbank", settings), wav, settings["fs"], "a")
    np.testing.assert_array_equal(feats, espnet_feats(wav, settings))
    np.testing.assert_array_equal(kept, wav)
    assert feats.shape == (samples // settings["hop_length"] + 1, 80) and feats.dtype == np.float32


@pytest.mark.parametrize("clip", real_clips())
def test_real_clips(clip: str) -> None:
    wav, fs = read_audio(CLIPS / f"{clip}.wav", clip)
    kept, feats = extract(build_feats_extract("fbank", LJSPEECH), wav, fs, clip)
    np.testing.assert_array_equal(feats, espnet_feats(wav, LJSPEECH))
    np.testing.assert_array_equal(kept, wav)
    _, feats = extract(build_feats_extract("original"), wav, fs, clip)
    np.testing.assert_allclose(feats, original_feats(wav), atol=2e-5)


@pytest.mark.parametrize("samples", [5000, 5120, 5119, 5121])
def test_original_is_the_originals(samples: int) -> None:
    wav = 0.1 * tone(samples)
    fitted, feats = extract(build_feats_extract("original"), wav, 22050, "a")
    np.testing.assert_allclose(feats, original_feats(wav), atol=2e-5)
    assert len(fitted) == len(feats) * 256
    left = (len(fitted) - samples) // 2
    np.testing.assert_array_equal(fitted[left : left + samples], wav / np.abs(wav).max() * 0.999)
    assert not fitted[:left].any() and not fitted[left + samples :].any()
    assert fitted.dtype == feats.dtype == np.float32
    assert np.abs(fitted).max() == pytest.approx(0.999) and 0 <= feats.min() and feats.max() <= 1


def test_original_spans_its_range() -> None:
    """-100 dB and less is 0, 0 dB and more is 1."""
    wav = np.concatenate([np.zeros(22050, np.float32), tone(22050)])
    _, feats = extract(build_feats_extract("original"), wav, 22050, "a")
    assert not feats[:80].any() and feats.max() == 1


def test_original_batch_equals_single_items() -> None:
    mel = OriginalMel()
    wavs = [torch.from_numpy(tone(samples, seed=samples)) for samples in (6000, 4096)]
    batch, lengths = mel(torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True), torch.tensor([6000, 4096]))
    assert lengths.tolist() == [24, 17] and batch.shape == (2, 24, mel.output_size())
    assert not batch[1, 17:].any()
    for feats, wav in zip(batch, wavs, strict=True):
        inner = len(wav) // 256 - 2  # the last frames see padding in a batch, a reflection alone; as in LogMelFbank
        torch.testing.assert_close(feats[:inner], mel(wav[None])[0][0, :inner])


def test_original_speaks_of_itself_as_fbank_does() -> None:
    fbank = build_feats_extract("fbank", LJSPEECH).get_parameters()
    assert build_feats_extract("original", LJSPEECH).get_parameters() == fbank
    assert not OriginalMel().state_dict()


@pytest.mark.parametrize("name", ["fbank", "original"])
@pytest.mark.parametrize("samples", range(2048 - 2, 2048 + 3))
def test_audio_and_frames_fit(name: str, samples: int) -> None:
    wav, feats = extract(build_feats_extract(name), tone(samples, 16000), build_feats_extract(name).fs, "a")
    assert (len(feats) - 1) * 256 <= len(wav) <= len(feats) * 256


BAD = {
    "rate": (tone(5000), 16000, r"utt5: sampling rate 16000 Hz, 22050 Hz is wanted"),
    "empty": (tone(0), 22050, r"utt5: the audio is empty: 0 samples, at least 513"),
    "short": (tone(512), 22050, r"utt5: too short: 512 samples, at least 513"),
    "silent": (tone(5000) * 1e-4, 22050, r"utt5: silent: its peak is \d\.\d\de-05, at least 1e-03"),
    "zeros": (np.zeros(5000, np.float32), 22050, r"utt5: silent: its peak is 0.00e\+00, at least 1e-03"),
    "nan": (np.where(np.arange(5000) < 4990, tone(5000), np.nan), 22050, r"utt5: 10 of 5000 .* first is sample 4990"),
    "inf": (np.where(np.arange(5000) != 7, tone(5000), -np.inf), 22050, r"utt5: 1 of 5000 .* first is sample 7"),
}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("name", ["fbank", "original"])
def test_bad_audio_is_named(name: str, kind: str) -> None:
    wav, fs, message = BAD[kind]
    with pytest.raises(ValueError, match=message):
        extract(build_feats_extract(name, {"fs": 22050}), wav, fs, "utt5")


def test_shortest_audio() -> None:
    for name in ("fbank", "original"):
        _, feats = extract(build_feats_extract(name, {"fs": 22050}), tone(513), 22050, "a")
        assert feats.shape == (3, 80) and np.isfinite(feats).all()


def test_frames_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    feats_extract = build_feats_extract("fbank", LJSPEECH)
    feats_extract.hop_length = 128  # a class whose frames aren't where it says
    with pytest.raises(ValueError, match="utt5: 5120 samples don't fit 21 frames of hop 128, which need 2560 to 2688"):
        extract(feats_extract, tone(5120), 22050, "utt5")


@pytest.mark.parametrize(
    "name, conf, message",
    [
        ("mfcc", {}, "unknown feature type 'mfcc'; there are: fbank, original"),
        ("fbank", {"n_shift": 256}, "'fbank' has no setting 'n_shift'; it has: fs, n_fft, win_length, hop_length"),
        ("original", {"log_base": 10}, "'original' has no setting 'log_base'"),
        ("fbank", {"win_length": 2048}, "win_length 2048 is longer than n_fft 1024"),
        ("fbank", {"fs": 8000}, "fmax 7600 Hz is above half the sampling rate 8000 Hz"),
        ("fbank", {"hop_length": 0}, "hop_length must be a positive integer, got 0"),
        ("fbank", {"n_fft": "big"}, "n_fft must be a positive integer, got 'big'"),
        ("fbank", {"center": False}, "center false"),
        ("fbank", {"log_base": 3}, "log_base must be 10, 2 or null"),
        ("fbank", {"window": "square"}, "square"),
        ("original", {"window": "square"}, "square"),
    ],
)
def test_bad_settings(name: str, conf: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_feats_extract(name, conf)


def test_full_settings_can_be_compared() -> None:
    assert full_settings("fbank", {"fs": 22050, "win_length": None}) == full_settings("fbank", LJSPEECH)
    assert full_settings("original")["fmin"] == 125


@pytest.mark.parametrize("kind", ["fbank", "original"])
@pytest.mark.parametrize("hop", [64, 75, 250])
@pytest.mark.parametrize("part", [7, 16, 50])
def test_features_of_long_audio_are_those_of_its_parts(
    kind: str, hop: int, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    extractor = build_feats_extract(
        kind, full_settings(kind, dict(fs=8000, n_fft=256, hop_length=hop, n_mels=20, fmin=0, fmax=4000))
    )
    wav = 0.1 * np.random.default_rng(0).standard_normal(60 * hop).astype(np.float32)
    for size in range(len(wav) - 5 * hop, len(wav), hop // 3):  # ends that are reflected in each way
        monkeypatch.setattr(features, "PART_FRAMES", 10**6)
        whole = extract(extractor, wav[:size], 8000, "clip")[1]
        monkeypatch.setattr(features, "PART_FRAMES", part)
        np.testing.assert_allclose(extract(extractor, wav[:size], 8000, "clip")[1], whole, rtol=0, atol=2e-5)


MEASURED = """
import resource
import numpy as np
from flowavenet_plugin.data.features import build_feats_extract, extract, full_settings
extractor = build_feats_extract("fbank", full_settings("fbank", dict(fs=16000, n_fft=512, hop_length=128)))
def most(minutes):
    wav = np.random.default_rng(0).standard_normal(60 * minutes * 16000, dtype=np.float32)
    extract(extractor, wav, 16000, "clip")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
short = most(2)
print((most(8) - short) / 2**10)
"""


def test_memory_grows_no_faster_than_audio() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURED], stdout=subprocess.PIPE, check=True, text=True)
    assert float(done.stdout.split()[-1]) < 600  # MiB; a mask of ESPnet2's would take 3,400
