"""Periodicity against plain loops, and where its value is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flowavenet_plugin.evaluation.periodicity import active_frames, frame_starts, periodicity

FS = 8000


def by_loops(wav: np.ndarray, middle: int) -> float:
    """The docstring's formula for one frame."""
    longest, shortest = int(FS / 71), int(FS / 600)
    length = 2 * longest
    start = middle - (length + longest) // 2
    window = [float(wav[i]) if 0 <= i < len(wav) else 0.0 for i in range(start, start + length + longest)]
    best, floor = 0.0, length * 1e-10
    for lag in range(shortest, longest + 1):
        product = sum(window[i] * window[i + lag] for i in range(length))
        energies = [max(sum(window[i + shift] ** 2 for i in range(length)), floor) for shift in (0, lag)]
        best = max(best, product / math.sqrt(energies[0] * energies[1]))
    return min(best, 1.0)


def test_it_equals_the_formula() -> None:
    time = np.arange(1200) / FS
    wav = np.sin(2 * np.pi * 170 * time) + 0.5 * np.random.default_rng(0).normal(size=1200)
    wav[600:900] *= 0.01
    values = periodicity(wav, FS)
    for frame in (0, 5, 12, 16, len(values) - 1):
        assert values[frame] == pytest.approx(by_loops(wav, frame_starts(1200, FS)[frame]), abs=1e-9)


def test_a_harmonic_tone_is_periodic_and_noise_is_not() -> None:
    time = np.arange(FS) / FS
    tone = sum(np.sin(2 * np.pi * 125 * k * time) / k for k in range(1, 10))  # a period of 64 samples
    inner = slice(10, -10)
    assert periodicity(tone, FS)[inner].min() > 0.999
    assert periodicity(np.random.default_rng(0).normal(size=FS), FS)[inner].mean() < 0.35
    assert periodicity(np.zeros(FS), FS).max() == 0.0


def test_frames_are_those_of_world() -> None:
    pyworld = pytest.importorskip("pyworld", reason="pyworld isn't installed")
    for samples, fs in [(22050, 22050), (22051, 22050), (12345, 24000), (7999, 16000), (10000, 44100)]:
        wav = np.random.default_rng(0).normal(size=samples)
        assert len(frame_starts(samples, fs)) == len(pyworld.dio(wav, fs, frame_period=5.0)[0])


def test_pauses_are_50_db_below_the_loudest_frame() -> None:
    wav = np.ones(FS)
    wav[FS // 2 :] *= 10 ** (-49 / 20)
    assert active_frames(wav, FS)[5:-5].all()
    wav[FS // 2 :] *= 10 ** (-2 / 20)
    active = active_frames(wav, FS)
    assert active[5:90].all() and not active[110:].any()
    assert not active_frames(np.zeros(FS), FS).any()
