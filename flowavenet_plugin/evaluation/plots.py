"""Pictures: natural and synthesised mel-spectrograms, and loss curves. Drawn on a Figure, without pyplot's state."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import librosa
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator

from flowavenet_plugin.evaluation.metrics import frame_length

#: Colour scale: so many dB below the loudest point of the natural speech.
DYNAMIC_RANGE = 80.0
N_MELS = 80
MIN_HZ = 80.0
_TICKS_HZ = (100, 500, 1000, 2000, 4000, 8000, 16000)
COLOURS = {"train": "tab:blue", "valid": "tab:orange"}

#: Set ("train", "valid") -> epoch -> loss.
Losses = dict[str, dict[int, float]]


class Pair(NamedTuple):
    """An utterance, spoken and synthesised.

    Attributes:
        utt: Utterance id.
        natural: Natural speech, shape (samples,).
        synthesised: The same from the vocoder, shape (samples,).
    """

    utt: str
    natural: np.ndarray
    synthesised: np.ndarray


def log_mel(wav: np.ndarray, fs: int) -> np.ndarray:
    """Mel-spectrogram for the eye: 80 Slaney bands from 80 Hz to fs / 2, so wider than what a vocoder is given.

    Args:
        wav: Waveform, shape (samples,).
        fs: Sampling rate in Hz.

    Returns:
        Power in dB (10 log10), floor 1e-10, shape (80, frames).
    """
    n_fft = frame_length(fs)
    power = librosa.feature.melspectrogram(
        y=wav, sr=fs, n_fft=n_fft, hop_length=n_fft // 4, n_mels=N_MELS, fmin=MIN_HZ, fmax=fs / 2
    )
    return 10.0 * np.log10(np.maximum(power, 1e-10))


def draw_mel(ax: Axes, mel: np.ndarray, fs: int, ticks_hz: Sequence[int]) -> AxesImage:
    """Draw a mel-spectrogram over seconds and Hz.

    Args:
        ax: Where to draw.
        mel: From :func:`log_mel`, in dB above the loudest point, shape (80, frames).
        fs: Sampling rate in Hz.
        ticks_hz: Frequencies to name; those above fs / 2 are left out.

    Returns:
        The image, for a colour bar of -80 to 0 dB.
    """
    low, high = librosa.hz_to_mel(MIN_HZ), librosa.hz_to_mel(fs / 2)
    hop_seconds = frame_length(fs) // 4 / fs
    image = ax.imshow(
        mel,
        origin="lower",
        aspect="auto",
        interpolation="none",
        cmap="magma",
        vmin=-DYNAMIC_RANGE,
        vmax=0.0,
        extent=(0.0, mel.shape[1] * hop_seconds, low, high),
    )
    ticks = [hz for hz in ticks_hz if hz < fs / 2]
    ax.set_yticks(librosa.hz_to_mel(np.array(ticks, dtype=float)), [str(hz) for hz in ticks])
    return image


def plot_spectrograms(axes: tuple[Axes, Axes], pair: Pair, fs: int, max_seconds: float = 5.0) -> AxesImage:
    """Draw the natural mel-spectrogram on the first axes and the synthesised on the second, in the same colours.

    Args:
        axes: Upper and lower axes.
        pair: What to draw.
        fs: Sampling rate in Hz.
        max_seconds: Longer utterances are cut to their first seconds.

    Returns:
        The lower image, for a colour bar: -80 to 0 dB, where 0 dB is the loudest point of the natural speech.
    """
    natural, synthesised = (log_mel(wav[: round(max_seconds * fs)], fs) for wav in pair[1:])
    loudest = natural.max()
    cut = f", first {max_seconds:g} s" if len(pair.natural) > max_seconds * fs else ""
    for ax, name, mel in zip(axes, ("natural", "synthesised"), (natural, synthesised), strict=True):
        image = draw_mel(ax, mel - loudest, fs, _TICKS_HZ)
        ax.set_title(f"{pair.utt}: {name}{cut}", loc="left", fontsize="medium")
        ax.set_facecolor("black")
        ax.set_xlim(0.0, min(max(len(pair.natural), len(pair.synthesised)) / fs, max_seconds))
        ax.set_ylabel("frequency in Hz, mel scale")
    axes[0].sharex(axes[1])
    axes[0].tick_params(labelbottom=False)
    axes[1].set_xlabel("time in seconds")
    return image


def plot_losses(ax: Axes, losses: Losses) -> None:
    """Draw the losses of training and validation against the epoch, and mark the best validation.

    Args:
        ax: Where to draw.
        losses: From :func:`read_losses`: negative log-likelihoods in nats per sample, and what settings add to them.
    """
    for name, curve in losses.items():
        ax.plot(list(curve), list(curve.values()), marker=".", label=name, color=COLOURS.get(name))
    valid = {epoch: loss for epoch, loss in losses.get("valid", {}).items() if np.isfinite(loss)}
    if valid:
        best = min(valid, key=valid.__getitem__)
        label = f"best valid: {valid[best]:.3f} after epoch {best}"
        ax.plot(best, valid[best], "o", markersize=9, fillstyle="none", color=COLOURS["valid"], label=label)
    note = leave_out_start(ax, [loss for curve in losses.values() for loss in curve.values()])
    ax.set_title(f"loss{note}", loc="left", fontsize="medium")
    ax.set_xlabel("epoch")
    ax.set_ylabel("loss in nats/sample: negative\nlog-likelihood and what is added")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(alpha=0.3)
    ax.legend(frameon=False)


def leave_out_start(ax: Axes, values: Sequence[float], less_is_better: bool = True) -> str:
    """Cut the axis when a few bad epochs, as at the start of training, would flatten the rest to a line.

    Args:
        ax: The axes.
        values: All that is drawn.
        less_is_better: Bad ones lie above; else below.

    Returns:
        What was cut, for the title; empty if nothing was.
    """
    sign = 1.0 if less_is_better else -1.0
    badness = sign * np.array([value for value in values if np.isfinite(value)])
    if badness.size < 8:
        return ""
    low = badness.min()
    usual = np.percentile(badness, 80) - low
    if usual == 0 or badness.max() - low <= 5 * usual:
        return ""
    top = low + 2 * usual
    ax.set_ylim(*sorted((sign * (low - 0.1 * usual), sign * top)))
    worst, where = sign * badness.max(), "above, up" if less_is_better else "below, down"
    return f" (not shown: {(badness > top).sum()} points {where} to {worst:.3g})"


def plot_samples(pairs: Sequence[Pair], fs: int, losses: Losses | None = None, title: str = "") -> Figure:
    """Draw one figure: each pair in a column of its own, and the losses below.

    Args:
        pairs: One or two utterances (more make it wider).
        fs: Sampling rate in Hz.
        losses: From :func:`read_losses`; without any, no loss is drawn.
        title: Heading of the figure.

    Returns:
        The figure; ``figure.savefig("samples.png")`` writes it.
    """
    rows = [1.0, 1.0, 0.9] if losses else [1.0, 1.0]
    figure = Figure(figsize=(1.0 + 6.0 * max(len(pairs), 1), 3.0 * len(rows)), dpi=110, layout="constrained")
    grid = figure.add_gridspec(len(rows), len(pairs), height_ratios=rows)
    for column, pair in enumerate(pairs):
        axes = (figure.add_subplot(grid[0, column]), figure.add_subplot(grid[1, column]))
        image = plot_spectrograms(axes, pair, fs)
        if column == len(pairs) - 1:  # one for all: the scales are the same
            figure.colorbar(image, ax=axes, label="dB relative to the loudest natural", pad=0.01)
    if losses:
        plot_losses(figure.add_subplot(grid[2, :]), losses)
    if title:
        figure.suptitle(title)
    return figure


def read_losses(train_log: str | Path, key: str = "loss") -> Losses:
    """Read the losses per epoch from a log of ESPnet2's trainer.

    A resumed training has older logs beside the newest (train.log, train.1.log, train.2.log, ...): they are read too,
    as far as the newer one didn't start over.

    Args:
        train_log: ``exp/voc_x/train.log``.
        key: Name of the figure to read.

    Returns:
        "train" and "valid" -> epoch -> value, as far as there are any, in the order of epochs.

    Raises:
        FileNotFoundError: If there is no such log.
    """
    train_log = Path(train_log)
    if not train_log.is_file():
        raise FileNotFoundError(f"no such training log: {train_log}")
    losses: Losses = {}
    for path in [*_older_logs(train_log), train_log]:
        newer = _read_one_log(path.read_text(encoding="utf-8", errors="replace"), key)
        for name, curve in newer.items():
            kept = {epoch: loss for epoch, loss in losses.get(name, {}).items() if epoch < min(curve)}
            losses[name] = kept | curve
    return losses


def _older_logs(train_log: Path) -> list[Path]:
    """Logs that ESPnet2's launcher has renamed, oldest (highest number) first."""
    pattern = re.compile(re.escape(train_log.stem) + r"\.(\d+)" + re.escape(train_log.suffix))
    numbered = {path: match for path in train_log.parent.iterdir() if (match := pattern.fullmatch(path.name))}
    return sorted(numbered, key=lambda path: int(numbered[path][1]), reverse=True)


def _read_one_log(text: str, key: str) -> Mapping[str, dict[int, float]]:
    """Values of ``key`` in lines like ``3epoch results: [train] loss=-1.2, time=..., [valid] loss=-1.1, ...``."""
    losses: Losses = {}
    for epoch, results in re.findall(r"(\d+)epoch results: (.*)", text):
        for name, stats in re.findall(r"\[(train|valid)\] ([^\[]*)", results):
            if match := re.search(rf"(?:^|, ){re.escape(key)}=([^,\s]+)", stats):
                losses.setdefault(name, {})[int(epoch)] = float(match[1])
    return losses
