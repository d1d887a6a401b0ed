"""What is drawn is read back from the figure."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from espnet2.train.reporter import Reporter
from matplotlib.figure import Figure

from flowavenet_plugin.evaluation.plots import Pair, log_mel, plot_losses, plot_samples, plot_spectrograms, read_losses

FS = 22050


def tone(hz: float, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * FS)) / FS).astype(np.float32)


def log_line(epoch: int, train: str, valid: str) -> str:
    return (
        f"[host] 2025-01-01 10:00:00,000 (trainer:394) INFO: {epoch}epoch results: [train] iter_time=1.0e-04, "
        f"total_loss=99.0, loss={train}, optim0_lr0=1.000e-03, train_time=0.5, time=1.5 seconds, total_count=10, "
        f"[valid] loss={valid}, time=0.1 seconds, total_count=2\n"
    )


@pytest.mark.parametrize("hz", [500.0, 2000.0, 8000.0])
def test_a_tone_lies_at_its_frequency_and_its_end(hz: float) -> None:
    """Frequency and time are read off the picture's own axes."""
    figure = Figure()
    axes = (figure.add_subplot(2, 1, 1), figure.add_subplot(2, 1, 2))
    pair = Pair("a", tone(hz), np.concatenate([tone(hz, 0.5), np.zeros(FS // 2, dtype=np.float32)]))
    plot_spectrograms(axes, pair, FS)
    natural, synthesised = (ax.images[0] for ax in axes)
    left, right, bottom, top = natural.get_extent()
    mel = np.asarray(natural.get_array())
    peak = bottom + (mel.mean(axis=1).argmax() + 0.5) / mel.shape[0] * (top - bottom)
    ticks = {
        int(label.get_text()): place
        for label, place in zip(axes[0].get_yticklabels(), axes[0].get_yticks(), strict=True)
    }
    assert peak == pytest.approx(ticks[int(hz)], abs=1.5 * (top - bottom) / mel.shape[0])
    assert (left, right) == (0.0, pytest.approx(1.0, abs=0.02))
    last_loud = np.flatnonzero(np.asarray(synthesised.get_array()).max(axis=0) > -40).max()
    assert last_loud / mel.shape[1] * right == pytest.approx(0.5, abs=0.05)


def test_both_pictures_share_the_colours_and_0_db_is_the_loudest_natural() -> None:
    figure = Figure()
    axes = (figure.add_subplot(2, 1, 1), figure.add_subplot(2, 1, 2))
    plot_spectrograms(axes, Pair("a", 0.1 * tone(1000), tone(1000)), FS)
    natural, synthesised = (ax.images[0] for ax in axes)
    assert natural.get_clim() == synthesised.get_clim() == (-80.0, 0.0)
    assert np.asarray(natural.get_array()).max() == pytest.approx(0.0, abs=1e-4)
    assert np.asarray(synthesised.get_array()).max() == pytest.approx(20.0, abs=1e-3)
    assert [ax.get_title(loc="left") for ax in axes] == ["a: natural", "a: synthesised"]


def test_long_utterances_are_cut_and_say_so() -> None:
    figure = Figure()
    axes = (figure.add_subplot(2, 1, 1), figure.add_subplot(2, 1, 2))
    plot_spectrograms(axes, Pair("a", tone(500, 2.0), tone(500, 2.0)), FS, max_seconds=1.5)
    assert axes[1].images[0].get_extent()[1] == pytest.approx(1.5, abs=0.02)
    assert axes[0].get_title(loc="left") == "a: natural, first 1.5 s"


def test_log_mel_of_silence_is_finite() -> None:
    mel = log_mel(np.zeros(3000, dtype=np.float32), FS)
    assert mel.shape[0] == 80
    assert mel == pytest.approx(-100.0)


def test_losses_are_drawn_and_the_best_marked() -> None:
    ax = Figure().add_subplot()
    plot_losses(ax, {"train": {1: 0.5, 2: -1.0, 3: -2.0}, "valid": {1: 0.6, 2: -1.5, 3: float("nan")}})
    train, valid, best = ax.get_lines()
    assert train.get_xydata().tolist() == [[1, 0.5], [2, -1.0], [3, -2.0]]
    assert valid.get_label() == "valid"
    assert best.get_xydata().tolist() == [[2, -1.5]]
    assert best.get_label() == "best valid: -1.500 after epoch 2"
    assert "nats/sample" in ax.get_ylabel()


def test_a_bad_start_does_not_flatten_the_curve() -> None:
    curve = {1: 1000.0, **{epoch: -3.0 - 0.1 * epoch for epoch in range(2, 21)}}
    ax = Figure().add_subplot()
    plot_losses(ax, {"train": curve})
    low, high = ax.get_ylim()
    assert low < -5.0
    assert -3.2 < high < 5.0
    assert ax.get_title(loc="left") == "loss (not shown: 1 points above, up to 1e+03)"
    whole = Figure().add_subplot()
    plot_losses(whole, {"train": {epoch: -3.0 - 0.1 * epoch for epoch in range(1, 21)}})
    assert whole.get_title(loc="left") == "loss"


@pytest.mark.parametrize(("number", "losses", "panels"), [(1, {}, 3), (2, {}, 5), (2, {"train": {1: 1.0}}, 6)])
def test_the_whole_figure(number: int, losses: dict, panels: int) -> None:
    pairs = [Pair(f"utt{index}", tone(440), tone(880)) for index in range(number)]
    figure = plot_samples(pairs, FS, losses, "name")
    assert len(figure.axes) == panels  # two for each pair, one for the colours, one for the losses
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert file.getvalue()[:8] == b"\x89PNG\r\n\x1a\n"


def test_drawing_leaves_pyplot_alone() -> None:
    """No global state, no display."""
    code = "import sys, flowavenet_plugin.evaluation.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_losses_are_read_from_the_log(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text(
        "1epoch:train:1-5batch: loss=7.0\n" + log_line(1, "1.234e+03", "-0.5") + log_line(2, "-1.250", "nan")
    )
    losses = read_losses(log)
    assert losses["train"] == {1: 1234.0, 2: -1.25}
    assert losses["valid"][1] == -0.5
    assert np.isnan(losses["valid"][2])
    assert read_losses(log, "train_time") == {"train": {1: 0.5, 2: 0.5}}


def test_losses_of_espnets_own_reporter_are_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log line is made by ESPnet2, so that a new form of it is noticed."""
    reporter = Reporter()
    for epoch in (1, 2):
        reporter.set_epoch(epoch)
        for name, loss in (("train", -1.5 * epoch), ("valid", -0.0004 * epoch)):
            with reporter.observe(name) as sub_reporter:
                sub_reporter.register({"loss": torch.tensor(loss), "accuracy": torch.tensor(0.5)})
                sub_reporter.next()
        with caplog.at_level(logging.INFO):
            logging.info(reporter.log_message())
    (tmp_path / "train.log").write_text("\n".join(caplog.messages))
    assert read_losses(tmp_path / "train.log") == {"train": {1: -1.5, 2: -3.0}, "valid": {1: -4e-4, 2: -8e-4}}


def test_older_logs_of_a_resumed_training_count(tmp_path: Path) -> None:
    """train.10.log is the oldest; a training that started over (epoch 1 in train.2.log) forgets what was before."""
    (tmp_path / "train.10.log").write_text(log_line(1, "9.0", "9.0") + log_line(7, "9.0", "9.0"))
    (tmp_path / "train.2.log").write_text(log_line(1, "1.0", "1.1") + log_line(2, "0.5", "0.6"))
    (tmp_path / "train.1.log").write_text("killed before the first epoch ended\n")
    (tmp_path / "train.log").write_text(log_line(2, "0.4", "0.5") + log_line(3, "0.1", "0.2"))
    (tmp_path / "other.1.log").write_text(log_line(5, "5.0", "5.0"))
    assert read_losses(tmp_path / "train.log") == {
        "train": {1: 1.0, 2: 0.4, 3: 0.1},
        "valid": {1: 1.1, 2: 0.5, 3: 0.2},
    }


def test_a_log_without_epochs_has_no_losses_and_a_missing_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.log").write_text("nothing yet\n")
    assert read_losses(tmp_path / "train.log") == {}
    with pytest.raises(FileNotFoundError, match="no such training log: .*absent.log"):
        read_losses(tmp_path / "absent.log")
