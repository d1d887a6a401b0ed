"""Statistics of features, as ESPnet2 writes them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np

from flowavenet_plugin.data.matrices import read_npy_header
from flowavenet_plugin.data.scp import atomic_open

#: What the file holds: frames, and sum and sum of squares over frames.
KEYS = ("count", "sum", "sum_square")
#: Bytes of an array: features have some hundred bands at most.
_LARGEST = 2**20


def read_stats(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read ESPnet2's feats_stats.npz (count, sum, sum_square over frames).

    Returns:
        Mean and standard deviation, each of shape (dim,), float64.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If it holds something else.
    """
    count, total, squares = read_sums(path)
    if count < 1 or total.ndim != 1:
        raise ValueError(f"{path} holds no statistics: count {count}, sums of shape {total.shape}")
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 0.0))


def read_sums(path: str | Path) -> tuple[int, np.ndarray, np.ndarray]:
    """Read ESPnet2's feats_stats.npz as it is.

    Returns:
        Frames; sum and sum of squares over frames, each of shape (dim,), float64. Without frames the sums are zeros,
        perhaps of shape ().

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If it is damaged or holds something else, or values aren't finite.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no statistics at {path}")
    arrays, what = [], ""
    try:
        with zipfile.ZipFile(path) as archive:
            missing = [key for key in KEYS if f"{key}.npy" not in archive.namelist()]
            if missing:
                raise ValueError(f"it has no {', '.join(missing)}")
            for key in KEYS:
                what = f"{key}: "
                arrays.append(_read_array(archive, key))
    except Exception as error:  # what is damaged makes the readers of zip files and arrays fail in many ways
        raise ValueError(f"{path} holds no statistics: {what}{error}") from error
    count, total, squares = arrays
    if count.shape != () or not 0 <= count < 2**53 or total.ndim > 1 or total.shape != squares.shape:
        raise ValueError(
            f"{path} holds no statistics: count {count}, sums of shapes {total.shape} and {squares.shape}; frames and "
            "two sums over frames, (dim,), are wanted"
        )
    if not (np.isfinite(total).all() and np.isfinite(squares).all()):
        raise ValueError(f"{path} holds statistics that are not finite (sum, sum_square)")
    return int(count), total, squares


def _read_array(archive: zipfile.ZipFile, key: str) -> np.ndarray:
    """Return an array of an npz file, float64; ValueError, and others, if it is damaged."""
    with archive.open(f"{key}.npy") as file:
        content = file.read(_LARGEST + 1)
    shape, end = read_npy_header(io.BytesIO(content))  # numpy takes the memory that a header asks for
    if end > min(len(content), _LARGEST):
        raise ValueError(f"truncated, or too large: the header says {shape}")
    return np.asarray(np.load(io.BytesIO(content), allow_pickle=False), dtype=np.float64)


def write_stats(path: Path, count: int, total: np.ndarray, total_square: np.ndarray) -> None:
    """Write ESPnet2's feats_stats.npz: frames, and sum and sum of squares over frames, each of shape (dim,)."""
    with atomic_open(path) as file:
        np.savez(file, count=count, sum=total, sum_square=total_square)
