"""The report's pictures, read back from the figures."""

from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from flowavenet_plugin.evaluation.pictures import (
    PLOT_BOX,
    draw_likelihood,
    draw_losses,
    draw_pitch,
    draw_spectrogram,
    draw_sweep,
)

FS = 16000


def tone(hz: float, seconds: float = 1.0) -> np.ndarray:
    time = np.arange(round(seconds * FS)) / FS
    return sum(0.1 * np.sin(2 * np.pi * hz * k * time) / k for k in range(1, 8)).astype(np.float32)


def pixels(figure: Figure) -> np.ndarray:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return np.asarray(Image.open(file).convert("RGB")).astype(int)


def test_a_spectrogram_lies_where_the_page_draws_its_line() -> None:
    """A second of sound on an axis of two seconds: bright in the left half of PLOT_BOX, black in the right."""
    image = pixels(draw_spectrogram(tone(200), FS, 2.0, 0.0))
    height, width, _ = image.shape
    left, bottom, across, up = PLOT_BOX
    row = image[round((1 - bottom - 0.05 * up) * height)].sum(axis=1)  # the lowest bands
    inside = row[round(left * width) + 3 : round((left + across) * width) - 3]
    bright = np.flatnonzero(inside > 250)
    assert bright.min() < 5
    assert bright.max() / len(inside) == pytest.approx(0.5, abs=0.03)
    assert row[round((left + across) * width) + 3 :].min() > 700  # white outside


def test_colours_end_at_the_loudest_of_the_natural_speech() -> None:
    image = draw_spectrogram(tone(200), FS, 1.0, 10.0).axes[0].images[0]
    other = draw_spectrogram(tone(200), FS, 1.0, 0.0).axes[0].images[0]
    assert image.get_clim() == (-80.0, 0.0)
    np.testing.assert_allclose(np.asarray(image.get_array()) + 10.0, np.asarray(other.get_array()), atol=1e-4)


def test_pitch_has_gaps_where_there_is_none_and_says_so() -> None:
    pytest.importorskip("pyworld", reason="pyworld isn't installed")
    figure = draw_pitch({"natural": tone(200), "noise": np.zeros(FS, dtype=np.float32)}, FS, 1.0)
    natural, other = figure.axes[0].get_lines()
    assert np.nanmedian(natural.get_ydata()) == pytest.approx(200.0, rel=0.01)
    assert natural.get_xdata()[-1] == pytest.approx(1.0, abs=0.006)
    assert np.isnan(other.get_ydata()).all()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["natural", "noise (unvoiced)"]


def test_likelihood_is_drawn_with_its_two_terms() -> None:
    parts = {"log_likelihood": {"valid": {1: 2.0, 2: 3.0}}, "log_p": {"valid": {1: -1.5, 2: -1.4}}}
    parts["logdet"] = {"valid": {1: 3.5, 2: 4.4}}
    ax = draw_likelihood(parts).axes[0]
    whole, noise, volume = (line.get_ydata() for line in ax.get_lines())
    np.testing.assert_allclose(whole, np.add(noise, volume))
    assert ax.get_ylabel() == "nats/sample"


def test_a_bad_start_does_not_flatten_the_likelihood() -> None:
    curve = {1: -1000.0, **{epoch: 3.0 + 0.1 * epoch for epoch in range(2, 21)}}
    ax = draw_likelihood({"log_likelihood": {"train": curve}}).axes[0]
    low, high = ax.get_ylim()
    assert -5.0 < low < 3.2 and high > 5.0
    assert "not shown: 1 points below, down to -1e+03" in ax.get_title(loc="left")


def test_losses_are_drawn() -> None:
    assert len(draw_losses({"train": {1: 1.0}, "valid": {1: 0.5}}).axes[0].get_lines()) == 3  # the best is marked


@pytest.mark.parametrize("number", [1, 3, 7])
def test_a_sweep_has_a_panel_for_each_figure(number: int) -> None:
    points = [(1.0, 3.0, 0.5), (0.0, 1.0, float("nan"))]
    figure = draw_sweep({f"figure {index}": {"dev": points} for index in range(number)})
    assert [ax.get_title(loc="left") for ax in figure.axes] == [f"figure {index}" for index in range(number)]
    assert figure.axes[0].get_lines()[0].get_xydata().tolist() == [[0.0, 1.0], [1.0, 3.0]]
    assert pixels(figure).shape[2] == 3


def test_natural_speech_is_a_dotted_line_where_it_has_a_figure() -> None:
    points = [(0.0, 1.0, 0.1), (1.0, 3.0, 0.5)]
    figure = draw_sweep({"MOS": {"dev": points, "eval": points}, "LSD": {"dev": points}}, {("MOS", "eval"): 4.5})
    mos, lsd = figure.axes
    dotted = [line for line in mos.get_lines() if line.get_linestyle() == ":"]
    assert [list(line.get_ydata()) for line in dotted] == [[4.5, 4.5]]
    curves = {line.get_color() for line in mos.get_lines() if len(line.get_xdata()) == 2 and line not in dotted}
    assert len(curves) == 2 and dotted[0].get_color() in curves
    assert [ax.get_title(loc="left") for ax in (mos, lsd)] == ["MOS (dotted: natural speech)", "LSD"]
    assert not [line for line in lsd.get_lines() if line.get_linestyle() == ":"]
