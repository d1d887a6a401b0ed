"""The picture of benchmarks/family.py: likelihood against cost."""

from __future__ import annotations

from pathlib import Path

from family_rows import PRESETS
from matplotlib.figure import Figure


def draw(rows: dict[str, dict[str, object]], path: Path) -> None:
    """Draw held-out log-likelihood against GFLOP per second of speech, presets in another colour.

    Raises:
        ValueError: If no row was trained.
    """
    trained = {name: row for name, row in rows.items() if "log_likelihood" in row}
    if not trained:
        raise ValueError("no row was trained (--data): there is nothing to draw")
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for name, row in trained.items():
        place = row["gflop_per_second"], row["log_likelihood"]
        axes.scatter(*place, color="C1" if name in PRESETS else "C0")
        axes.annotate(name, place, xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlabel("GFLOP per second of speech")
    axes.set_ylabel("held-out log-likelihood (nats/sample)")
    axes.set_title(f"After {max(row['trained_samples'] for row in trained.values()):,} training samples each")
    axes.margins(x=0.2)
    axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
