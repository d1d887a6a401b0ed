"""The picture of benchmarks/family.py: likelihood against cost."""

from __future__ import annotations

from pathlib import Path

from family_rows import PRESETS
from matplotlib import colormaps
from matplotlib.figure import Figure


def draw(rows: dict[str, dict[str, object]], path: Path) -> None:
    """Draw held-out log-likelihood against GFLOP per second of speech, presets as stars.

    Raises:
        ValueError: If no row was trained.
    """
    trained = {name: row for name, row in rows.items() if "log_likelihood" in row}
    if not trained:
        raise ValueError("no row was trained (--data): there is nothing to draw")
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes, colours = figure.subplots(), colormaps["tab20"].colors
    for i, (name, row) in enumerate(sorted(trained.items(), key=lambda item: -item[1]["log_likelihood"])):
        preset = name in PRESETS
        style = dict(marker="*" if preset else "o", s=150 if preset else 35, color=colours[i % len(colours)])
        axes.scatter(row["gflop_per_second"], row["log_likelihood"], label=name, **style)
    figure.legend(loc="outside right center", fontsize=8, title="from top to bottom")
    axes.set_xscale("log")
    axes.set_xlabel("GFLOP per second of speech")
    axes.set_ylabel("held-out log-likelihood (nats/sample)")
    axes.set_title(f"After {max(row['trained_samples'] for row in trained.values()):,} training samples each")
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
