"""The metrics of speech against speech, each where its value is known or can be computed another way."""

from __future__ import annotations

import math
from pathlib import Path

import librosa
import numpy as np
import pytest
import scipy

from flowavenet_plugin.evaluation import scores
from flowavenet_plugin.evaluation.scores import METRICS, score, usable_metrics
from flowavenet_plugin.evaluation.speech import Speech

CLIP = Path(__file__).parents[2] / "egs/mini/voc1/corpus/flac/MINI-0024.flac"
FS = 22050


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    """Two seconds of synthesised speech at 22,050 Hz."""
    return librosa.load(CLIP, sr=FS, duration=2.0)[0]


def metric(name: str) -> scores.Metric:
    found = next(metric for metric in METRICS if metric.name == name)
    if found.package:
        pytest.importorskip(found.package, reason=f"{found.package} isn't installed")
    return found


class Voice:
    """Stands for Speech, with analyses that are given."""

    fs = FS

    def __init__(self, **analyses: np.ndarray) -> None:
        vars(self).update(analyses)


def test_log_f0_rmse_and_voicing_error_equal_their_formulas() -> None:
    natural = Voice(f0=np.array([100.0, 200.0, 0.0, 0.0, 100.0]))
    other = Voice(f0=np.array([200.0, 200.0, 0.0, 50.0, 0.0]))
    assert scores.log_f0_rmse(natural, other) == pytest.approx(math.log(2) / math.sqrt(2))
    assert scores.voicing_error(natural, other) == pytest.approx(40.0)
    assert math.isnan(scores.log_f0_rmse(natural, Voice(f0=np.zeros(5))))


def test_periodicity_rmse_is_taken_over_speech_only() -> None:
    natural = Voice(periodicity=np.array([1.0, 0.5, 0.0]), active=np.array([True, True, False]))
    assert scores.periodicity_rmse(natural, Voice(periodicity=np.array([0.4, 0.5, 1.0]))) == pytest.approx(
        0.6 / math.sqrt(2)
    )
    nothing = Voice(periodicity=np.zeros(1), active=np.array([False]))
    assert math.isnan(scores.periodicity_rmse(nothing, nothing))


@pytest.mark.parametrize("hz", [100.0, 220.0])
def test_f0_is_found(hz: float) -> None:
    pytest.importorskip("pyworld", reason="pyworld isn't installed")
    time = np.arange(FS) / FS
    tone = sum(0.1 * np.sin(2 * np.pi * hz * k * time) / k for k in range(1, 12))
    assert np.median(Speech(tone.astype(np.float32), FS).f0[20:-20]) == pytest.approx(hz, rel=0.01)


def test_voicing_error_is_the_share_of_noise_in_place_of_voice() -> None:
    """Of two seconds of a tone the other voice has 0.6 s of noise, less or more a frame at each end."""
    voicing = metric("vuv_error")
    time = np.arange(2 * FS) / FS
    tone = sum(0.1 * np.sin(2 * np.pi * 150 * k * time) / k for k in range(1, 12))
    other = tone.copy()
    other[FS // 2 : FS // 2 + round(0.6 * FS)] = np.random.default_rng(0).normal(scale=0.1, size=round(0.6 * FS))
    assert score(Speech(tone, FS), Speech(other, FS), [voicing])["vuv_error"] == pytest.approx(30.0, abs=1.5)


def test_f0_figures_of_speech_equal_loops_over_worlds_analysis(clip: np.ndarray) -> None:
    pitch, voicing = metric("log_f0_rmse"), metric("vuv_error")
    noisy = clip + 0.02 * np.random.default_rng(0).normal(size=len(clip)).astype(np.float32)
    tracks = [world_f0(wav)[0] for wav in (clip, noisy)]
    squares, wrong = [], 0
    for first, second in zip(*tracks, strict=True):
        wrong += (first > 0) != (second > 0)
        if first > 0 and second > 0:
            squares.append(math.log(first / second) ** 2)
    found = score(Speech(clip, FS), Speech(noisy, FS), [pitch, voicing])
    assert found["log_f0_rmse"] == pytest.approx(math.sqrt(sum(squares) / len(squares)), rel=1e-6)
    assert found["vuv_error"] == pytest.approx(100 * wrong / len(tracks[0]), rel=1e-9)
    assert wrong > 5 and squares


def world_f0(wav: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pyworld = pytest.importorskip("pyworld")
    coarse, times = pyworld.dio(wav.astype(np.float64), FS, f0_floor=71.0, f0_ceil=600.0, frame_period=5.0)
    return pyworld.stonemask(wav.astype(np.float64), coarse, times, FS), times


def test_mcd_equals_integrals_over_worlds_envelope(clip: np.ndarray) -> None:
    """c_m = 2 / pi * the integral of ln magnitude * cos(m w') dw', w' the warped frequency; by the trapezoid rule."""
    mcd = metric("mcd")
    noisy = clip + 0.01 * np.random.default_rng(0).normal(size=len(clip)).astype(np.float32)
    omega = np.linspace(0, np.pi, 513)
    warped = omega + 2 * np.arctan(0.45 * np.sin(omega) / (1 - 0.45 * np.cos(omega)))
    cosines = np.cos(np.outer(warped, np.arange(1, 35)))
    cepstra = []
    for wav in (clip, noisy):
        power = __import__("pyworld").cheaptrick(wav.astype(np.float64), *world_f0(wav), FS)
        half_log = 0.5 * np.log(np.maximum(power, power.max() * 1e-8))
        cepstra.append(2 / np.pi * scipy.integrate.trapezoid(half_log[:, :, None] * cosines, warped, axis=1))
    distortions = []
    levels = [10 * math.log10(max(power_about(clip, frame), 1e-20)) for frame in range(len(cepstra[0]))]
    for level, natural, other in zip(levels, *cepstra, strict=True):
        if level >= max(levels) - 50:
            distortions.append(10 / math.log(10) * math.sqrt(2 * sum((natural - other) ** 2)))
    assert 0 < len(distortions) < len(levels)
    value = score(Speech(clip, FS), Speech(noisy, FS), [mcd])["mcd"]
    assert value == pytest.approx(sum(distortions) / len(distortions), rel=2e-3)
    assert value > 1


def power_about(wav: np.ndarray, frame: int) -> float:
    """Mean square of 25 ms about a 5 ms frame, zeros beyond the ends."""
    middle, width = round(frame * 0.005 * FS), round(0.025 * FS)
    start = middle - width // 2
    return float(np.sum(wav[max(start, 0) : start + width].astype(float) ** 2) / width)


def test_a_voice_a_semitone_higher_has_that_log_f0_rmse() -> None:
    pitch = metric("log_f0_rmse")
    time = np.arange(FS) / FS
    low, high = (
        sum(0.1 * np.sin(2 * np.pi * hz * k * time) / k for k in range(1, 12)).astype(np.float32)
        for hz in (150.0, 150.0 * 2 ** (1 / 12))
    )
    assert score(Speech(low, FS), Speech(high, FS), [pitch])["log_f0_rmse"] == pytest.approx(math.log(2) / 12, rel=0.05)


def test_pesq_is_that_of_the_package_at_16_khz(clip: np.ndarray) -> None:
    pesq = metric("pesq")
    package = __import__("pesq")
    noisy = clip + 0.01 * np.random.default_rng(0).normal(size=len(clip)).astype(np.float32)
    value = score(Speech(clip, FS), Speech(noisy, FS), [pesq])["pesq"]
    both = [scipy.signal.resample_poly(wav.astype(float), 320, 441) for wav in (clip, noisy)]  # another filter
    assert value == pytest.approx(package.pesq(16000, *both, "wb"), abs=0.01)
    assert 1.0 < value < 3.0
    short = Speech(clip[:2000], FS)
    assert math.isnan(score(short, short, [pesq])["pesq"])


@pytest.mark.parametrize(("fs", "slope", "shift"), [(22050, 1.3669, 3.8224), (8000, 1.4945, 4.6607)])
def test_pesq_of_a_copy_is_the_recommendations_largest(clip: np.ndarray, fs: int, slope: float, shift: float) -> None:
    """P.862.2 (wide band) and P.862.1 map the raw score, 4.5 at most, by 0.999 + 4 / (1 + exp(shift - slope * raw))."""
    pesq = metric("pesq")
    speech = Speech(clip if fs == FS else librosa.resample(clip, orig_sr=FS, target_sr=fs), fs)
    assert score(speech, speech, [pesq])["pesq"] == pytest.approx(
        0.999 + 4 / (1 + math.exp(shift - slope * 4.5)), abs=1e-3
    )


def test_stoi_of_a_copy_is_1_and_of_noise_is_low(clip: np.ndarray) -> None:
    stoi = metric("stoi")
    noise = 0.1 * np.random.default_rng(0).normal(size=len(clip)).astype(np.float32)
    assert score(Speech(clip, FS), Speech(clip, FS), [stoi])["stoi"] == pytest.approx(1.0, abs=1e-6)
    assert score(Speech(clip, FS), Speech(noise, FS), [stoi])["stoi"] < 0.5
    short = Speech(clip[:2000], FS)
    assert math.isnan(score(short, short, [stoi])["stoi"])


def test_stoi_equals_its_formula(clip: np.ndarray) -> None:
    """Taal et al. 2011 from the paper, for speech without pauses: 15 third-octaves from 150 Hz, 30 frames, -15 dB."""
    stoi = metric("stoi")
    rng = np.random.default_rng(0)
    modulation = 1.0 + 0.5 * np.sin(2 * np.pi * 4 * np.arange(20000) / 10000)
    natural = rng.normal(size=20000) * modulation
    other = natural + 0.7 * rng.normal(size=20000)
    value = score(Speech(natural, 10000), Speech(other, 10000), [stoi])["stoi"]
    assert value == pytest.approx(stoi_by_hand(natural, other), abs=2e-3)
    assert 0.3 < value < 0.95


def stoi_by_hand(natural: np.ndarray, other: np.ndarray) -> float:
    hann = np.hanning(258)[1:-1]
    hz = np.linspace(0, 5000, 257)
    centres = 150 * 2 ** (np.arange(15) / 3)

    def bands(wav: np.ndarray) -> np.ndarray:
        frames = np.array([wav[i : i + 256] * hann for i in range(0, len(wav) - 256, 128)])
        power = np.abs(np.fft.rfft(frames, 512)) ** 2
        edges = [(np.abs(hz - c * 2 ** (-1 / 6)).argmin(), np.abs(hz - c * 2 ** (1 / 6)).argmin()) for c in centres]
        return np.sqrt(np.array([power[:, low:high].sum(1) for low, high in edges]))  # (15, frames)

    x, y = bands(natural), bands(other)
    correlations = []
    for end in range(30, x.shape[1] + 1):
        for a, b in zip(x[:, end - 30 : end], y[:, end - 30 : end], strict=True):
            scaled = np.minimum(b * np.linalg.norm(a) / np.linalg.norm(b), a * (1 + 10 ** (15 / 20)))
            correlations.append(np.corrcoef(a, scaled)[0, 1])
    return float(np.mean(correlations))


def test_a_copy_is_perfect_in_every_metric(clip: np.ndarray) -> None:
    usable, _ = usable_metrics(FS)
    values = score(Speech(clip, FS), Speech(clip.copy(), FS), usable)
    assert set(values) >= {"lsd", "log_mel", "mr_stft", "periodicity"}
    for entry in (entry for entry in usable if not entry.alone):
        assert values[entry.name] == pytest.approx({"pesq": 4.644, "stoi": 1.0}.get(entry.name, 0.0), abs=1e-3)


def test_more_noise_is_worse_in_every_metric(clip: np.ndarray) -> None:
    usable, _ = usable_metrics(FS)
    noise = np.random.default_rng(0).normal(size=len(clip)).astype(np.float32)
    little, much = (score(Speech(clip, FS), Speech(clip + scale * noise, FS), usable) for scale in (0.002, 0.05))
    for entry in usable:
        worse, better = (little, much) if entry.more_is_better else (much, little)
        assert worse[entry.name] > better[entry.name], entry.name


def test_synthesised_silence_is_scored_where_that_is_defined(clip: np.ndarray) -> None:
    """A vocoder that fell silent is bad, not an error."""
    usable, _ = usable_metrics(FS)
    values = score(Speech(clip, FS), Speech(np.zeros_like(clip), FS), usable)
    assert values["log_mel"] > 20 and values["lsd"] > 10
    assert math.isnan(values.get("pesq", math.nan))
    if "mcd" in values:
        assert math.isfinite(values["mcd"]) and math.isnan(values["log_f0_rmse"])


def test_the_longer_recording_is_cut(clip: np.ndarray) -> None:
    usable, _ = usable_metrics(FS)
    longer = np.concatenate([clip, np.ones(200, dtype=np.float32)])
    natural = Speech(clip, FS)
    assert score(natural, Speech(longer, FS), usable) == score(natural, Speech(clip, FS), usable)
    assert score(Speech(longer, FS), natural, usable) == score(natural, Speech(clip, FS), usable)


def test_other_rates_are_refused_with_both(clip: np.ndarray) -> None:
    with pytest.raises(ValueError, match="22050 Hz and 24000 Hz"):
        score(Speech(clip, FS), Speech(clip, 24000), [])


def test_a_missing_package_is_named_with_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "find_spec", lambda name: None)
    usable, lines = usable_metrics(FS)
    assert [entry.name for entry in usable] == ["lsd", "log_mel", "mr_stft", "periodicity"]
    assert len(lines) == 5
    assert lines[0].startswith("left out: MCD (dB), log-F0 RMSE, V/UV error (%); install pyworld: pip install")
    assert "pyworld-prebuilt" in lines[0]  # the package of the module's own name has no wheels for Linux
    assert "left out: PESQ; install pesq" in lines[1] and "a C compiler and Python's headers" in lines[1]
    assert lines[3] == "left out: DistillMOS; install distillmos: pip install --no-deps distillmos xls-r-sqa"
    assert lines[4].startswith(
        "left out: DNSMOS, DNSMOS P.808; install speechmos: pip install --no-deps speechmos onnxr"
    )
    usable, lines = usable_metrics(FS, ["pesq", "distillmos", "dnsmos", "lsd"])
    assert "lsd" not in [entry.name for entry in usable]
    assert len(lines) == 3 and lines[2].startswith("left out: DNSMOS P.808;")


@pytest.mark.parametrize(("package", "lacking"), [("distillmos", "xls_r_sqa"), ("speechmos", "onnxruntime")])
def test_a_package_without_what_it_imports_is_missing(
    monkeypatch: pytest.MonkeyPatch, package: str, lacking: str
) -> None:
    monkeypatch.setattr(scores, "find_spec", lambda name: None if name == lacking else True)
    usable, lines = usable_metrics(FS)
    assert package not in [entry.package for entry in usable]
    assert len(lines) == 1 and f"install {package}: " in lines[0]


def test_rates_too_low_for_a_metric_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "find_spec", lambda name: True)
    usable, lines = usable_metrics(8000)
    assert "pesq" in [entry.name for entry in usable]
    assert lines[0] == "left out: STOI; it needs 10000 Hz, this is 8000 Hz"
    assert lines[1] == "left out: DistillMOS; it needs 16000 Hz, this is 8000 Hz"
    assert len(lines) == 4


def test_no_figure_compares_with_silence(clip: np.ndarray) -> None:
    usable = usable_metrics(FS, ("distillmos", "dnsmos", "dnsmos_p808"))[0]
    assert {"lsd", "log_mel", "mr_stft", "periodicity"} <= {metric.name for metric in usable}
    silence = Speech(np.zeros(FS, np.float32), FS)
    for nothing in (silence, Speech(np.full(FS, 5e-4, np.float32), FS)):
        found = score(nothing, Speech(clip[:FS], FS), usable)
        assert all(math.isnan(value) for value in found.values()), found
    found = score(Speech(clip[:FS], FS), silence, usable)  # that can be told: nothing of the speech is there
    assert math.isfinite(found["mr_stft"]) and found["mr_stft"] < 20 and math.isnan(found.get("pesq", math.nan))


def test_a_metric_that_fails_is_named(clip: np.ndarray) -> None:
    def fail(*_: Speech) -> float:
        raise ZeroDivisionError("by nothing")

    broken = scores.Metric("lsd", "log-spectral distance (dB)", False, fail)
    with pytest.raises(
        ValueError, match=r"distance \(dB\) \(--leave_out lsd .*fails: ZeroDivisionError\('by nothing'\)"
    ):
        score(Speech(clip, FS), Speech(clip, FS), [broken])
