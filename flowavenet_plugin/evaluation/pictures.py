"""Pictures for the report: what several systems make of an utterance, the losses, and figures against temperature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flowavenet_plugin.evaluation.periodicity import FRAME_SECONDS
from flowavenet_plugin.evaluation.plots import Losses, draw_mel, log_mel, plot_losses
from flowavenet_plugin.evaluation.speech import Speech

_TICKS_HZ = (200, 500, 1000, 2000, 4000, 8000, 16000)


def draw_clip(recordings: Mapping[str, np.ndarray], fs: int) -> Figure:
    """Draw mel-spectrograms one below the other, in the colours of the first, and all F0 where pyworld is installed.

    Args:
        recordings: Label -> waveform, (samples,); the first is natural speech.
        fs: Sampling rate in Hz.
    """
    with_f0 = find_spec("pyworld") is not None
    panels = len(recordings) + with_f0
    figure = Figure(figsize=(5.0, 0.4 + 1.3 * panels), dpi=150, layout="constrained")
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]
    loudest = log_mel(next(iter(recordings.values())), fs).max()
    for ax, (label, wav) in zip(axes, recordings.items(), strict=False):
        draw_mel(ax, log_mel(wav, fs) - loudest, fs, _TICKS_HZ)
        ax.set_ylabel("Hz", fontsize="small")
        ax.set_title(label, loc="left", fontsize="small")
    if with_f0:
        _draw_f0(axes[-1], recordings, fs)
    for ax in axes:
        ax.tick_params(labelsize="x-small")
    axes[-1].set_xlabel("seconds", fontsize="small")
    return figure


def _draw_f0(ax: Axes, recordings: Mapping[str, np.ndarray], fs: int) -> None:
    """Draw the fundamental frequencies, natural speech as a broad grey line, with gaps where there is none."""
    for number, (label, wav) in enumerate(recordings.items()):
        f0 = Speech(wav, fs).f0
        style = dict(color="0.7", linewidth=4.0) if number == 0 else dict(linewidth=1.0)
        ax.plot(np.arange(len(f0)) * FRAME_SECONDS, np.where(f0 > 0, f0, np.nan), label=label, **style)
    ax.set_title("fundamental frequency", loc="left", fontsize="small")
    ax.set_ylabel("Hz", fontsize="small")
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize="xx-small", ncols=2)


def draw_losses(losses: Losses) -> Figure:
    """Draw the loss curves alone."""
    figure = Figure(figsize=(5.0, 2.6), dpi=150, layout="constrained")
    plot_losses(figure.add_subplot(), losses)
    return figure


def draw_sweep(figures: Mapping[str, Mapping[str, Sequence[tuple[float, float, float]]]]) -> Figure:
    """Draw figures against the temperature of the noise, a panel for each.

    Args:
        figures: Heading -> set -> (temperature, mean, half width of the 95% interval) of each point; NaN: no interval.
    """
    figure = Figure(figsize=(5.0, 0.3 + 1.7 * len(figures)), dpi=150, layout="constrained")
    axes = figure.subplots(len(figures), 1, sharex=True, squeeze=False)[:, 0]
    for ax, (heading, sets) in zip(axes, figures.items(), strict=True):
        for name, points in sets.items():
            temperatures, means, widths = zip(*sorted(points), strict=True)
            ax.errorbar(temperatures, means, np.nan_to_num(widths), marker=".", capsize=2, linewidth=1.0, label=name)
        ax.set_title(heading, loc="left", fontsize="small")
        ax.grid(alpha=0.3)
    axes[0].legend(frameon=False, fontsize="x-small")
    axes[-1].set_xlabel("temperature")
    return figure
