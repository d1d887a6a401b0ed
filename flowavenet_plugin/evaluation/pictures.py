"""Pictures for the report: what several systems make of an utterance, the losses, and figures against temperature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from flowavenet_plugin.evaluation.periodicity import FRAME_SECONDS
from flowavenet_plugin.evaluation.plots import COLOURS, Losses, draw_mel, leave_out_start, log_mel, plot_losses
from flowavenet_plugin.evaluation.speech import Speech

#: Where the plot lies in the picture of a spectrogram, in parts of its width and height: left, bottom, width, height.
PLOT_BOX = (0.14, 0.21, 0.84, 0.76)
_TICKS_HZ = (200, 500, 1000, 2000, 4000, 8000, 16000)


def draw_spectrogram(wav: np.ndarray, fs: int, seconds: float, loudest: float) -> Figure:
    """Draw a mel-spectrogram, the plot at :data:`PLOT_BOX`.

    Args:
        wav: Waveform, (samples,).
        fs: Sampling rate in Hz.
        seconds: What the time axis spans.
        loudest: Level of :func:`log_mel` that the colour scale ends at, in dB.
    """
    figure = Figure(figsize=(4.2, 1.9), dpi=150)
    ax = figure.add_axes(PLOT_BOX)
    ax.set_facecolor("black")
    draw_mel(ax, log_mel(wav, fs) - loudest, fs, _TICKS_HZ)
    ax.set_xlim(0.0, seconds)
    ax.set_xlabel("seconds", fontsize=8, labelpad=1)
    ax.set_ylabel("Hz", fontsize=8)
    ax.yaxis.set_label_coords(-0.135, 0.5)  # beside the numbers, however long they are
    ax.tick_params(labelsize=7, pad=2)
    return figure


def draw_pitch(recordings: Mapping[str, np.ndarray], fs: int, seconds: float) -> Figure:
    """Draw fundamental frequencies, natural speech as a broad grey line, with gaps where there is none; needs pyworld.

    Args:
        recordings: Label -> waveform, (samples,); the first is natural speech.
        fs: Sampling rate in Hz.
        seconds: What the time axis spans.
    """
    figure = Figure(figsize=(4.8, 2.5), dpi=150, layout="constrained")
    ax = figure.add_subplot()
    for number, (label, wav) in enumerate(recordings.items()):
        f0 = Speech(wav, fs).f0
        style = dict(color="0.75", linewidth=5.0) if number == 0 else dict(linewidth=1.2)
        name = label if f0.any() else f"{label} (unvoiced)"
        ax.plot(np.arange(len(f0)) * FRAME_SECONDS, np.where(f0 > 0, f0, np.nan), label=name, **style)
    ax.set_title("fundamental frequency (F0)", loc="left", fontsize="small")
    ax.set_xlim(0.0, seconds)
    ax.set_xlabel("seconds", fontsize="small")
    ax.set_ylabel("Hz", fontsize="small")
    ax.tick_params(labelsize="small")
    ax.grid(alpha=0.3)
    figure.legend(loc="outside lower center", frameon=False, fontsize="x-small", ncols=3)
    return figure


def draw_losses(losses: Losses) -> Figure:
    """Draw the loss curves alone."""
    figure = Figure(figsize=(5.6, 2.8), dpi=150, layout="constrained")
    plot_losses(figure.add_subplot(), losses)
    return figure


def draw_likelihood(parts: Mapping[str, Losses]) -> Figure:
    """Draw the log-likelihood of each epoch and the two terms that it is the sum of.

    Args:
        parts: "log_likelihood", "log_p" (of the noise) and "logdet" (the change of volume) -> set -> epoch -> value, in
            nats per sample.
    """
    names = {"log_likelihood": "log-likelihood", "log_p": "log p(z)", "logdet": "log-determinant"}
    figure = Figure(figsize=(5.6, 3.2), dpi=150, layout="constrained")
    ax = figure.add_subplot()
    for (key, name), line in zip(names.items(), ("-", ":", "--"), strict=True):
        for dataset, curve in parts.get(key, {}).items():
            label = f"{name}, {dataset}"
            ax.plot(list(curve), list(curve.values()), line, marker=".", color=COLOURS.get(dataset), label=label)
    drawn = [value for part in parts.values() for curve in part.values() for value in curve.values()]
    note = leave_out_start(ax, drawn, less_is_better=False)
    ax.set_title(f"log-likelihood and its two terms{note}", loc="left", fontsize="medium")
    ax.set_xlabel("epoch")
    ax.set_ylabel("nats/sample")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)
    figure.legend(loc="outside lower center", frameon=False, fontsize="small", ncols=3)
    return figure


def draw_sweep(
    figures: Mapping[str, Mapping[str, Sequence[tuple[float, float, float]]]],
    natural: Mapping[tuple[str, str], float] | None = None,
) -> Figure:
    """Draw figures against the temperature of the noise, a panel for each, three in a row.

    Args:
        figures: Heading -> set -> (temperature, mean, half width of the 95% interval) of each point; NaN: no interval.
        natural: Heading and set -> mean of natural speech, where it has one: a dotted line.
    """
    means_of = natural or {}
    lines = -(-len(figures) // 3)
    figure = Figure(figsize=(9.6, 0.6 + 2.0 * lines), dpi=120, layout="constrained")
    axes = figure.subplots(lines, 3, sharex=True, squeeze=False).ravel()
    for ax, (heading, sets) in zip(axes, figures.items(), strict=False):
        for name, points in sets.items():
            temperatures, means, widths = zip(*sorted(points), strict=True)
            style = dict(marker=".", capsize=2, linewidth=1.2, label=name)
            drawn = ax.errorbar(temperatures, means, np.nan_to_num(widths), **style)
            if (heading, name) in means_of:
                ax.axhline(means_of[heading, name], color=drawn.lines[0].get_color(), linestyle=":", linewidth=1.2)
        if any(heading == known for known, _ in means_of):
            heading = f"{heading} (dotted: natural speech)"
        ax.set_title(heading, loc="left", fontsize="medium")
        ax.tick_params(labelbottom=True)
        ax.grid(alpha=0.3)
    for ax in axes[len(figures) :]:
        ax.remove()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", frameon=False, ncols=4)
    figure.supxlabel("temperature of the noise")
    return figure
