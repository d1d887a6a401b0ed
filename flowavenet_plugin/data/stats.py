"""Statistics of features, as ESPnet2 writes them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from flowavenet_plugin.data.scp import atomic_open


def read_stats(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read ESPnet2's feats_stats.npz (count, sum, sum_square over frames).

    Returns:
        Mean and standard deviation, each of shape (dim,), float64.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If it holds something else.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no statistics at {path}")
    keys = ("count", "sum", "sum_square")
    try:
        stats = np.load(path, allow_pickle=False)
        missing = [key for key in keys if key not in getattr(stats, "files", ())]
        if not missing:
            count, total, squares = (np.asarray(stats[key], dtype=np.float64) for key in keys)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} holds no statistics: {error}") from error
    if missing:
        raise ValueError(f"{path} has no {', '.join(missing)}")
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 0.0))


def write_stats(path: Path, count: int, total: np.ndarray, total_square: np.ndarray) -> None:
    """Write ESPnet2's feats_stats.npz: frames, and sum and sum of squares over frames, each of shape (dim,)."""
    with atomic_open(path) as file:
        np.savez(file, count=count, sum=total, sum_square=total_square)
