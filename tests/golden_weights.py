"""The golden vectors of the original FloWaveNet code: weights by formula, numbers from tests/golden/*.npz."""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(__file__).parent / "golden"
NAMES = ("tiny_additive", "tiny_multiscale", "tiny_singlescale", "paper")


@dataclass
class Golden:
    """One configuration: what the original was given, and what it returned."""

    config: dict
    arrays: dict[str, np.ndarray]
    names: list[str]
    shapes: list[tuple[int, ...]]

    def tensor(self, key: str, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return a stored array."""
        return torch.from_numpy(self.arrays[key]).to(dtype)

    def number(self, key: str) -> float:
        """Return a stored number."""
        return float(self.arrays[key])

    def state_dict(self, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
        """Return the original's weights under its own names."""
        pairs = zip(self.names, self.shapes, strict=True)
        return {name: torch.from_numpy(weight(name, shape)).to(dtype) for name, shape in pairs}


def load(name: str) -> Golden:
    """Read one of :data:`NAMES`."""
    with np.load(FOLDER / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files}
    shapes = [tuple(int(n) for n in _sizes(shape)) for shape in arrays["shapes"]]
    return Golden(json.loads(str(arrays["config"])), arrays, [str(name) for name in arrays["params"]], shapes)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Compute a weight from its name: README of the golden vectors."""
    index = np.arange(math.prod(shape), dtype=np.float64)
    phase = (zlib.crc32(name.encode()) % 10007) / 10007 * 2 * math.pi
    s = np.sin(0.7 * index + 1.3 * np.sin(0.011 * index) + phase).reshape(shape)
    if name.endswith("actnorm.scale"):
        return 1 + 0.1 * s
    if name.endswith("actnorm.loc"):
        return 0.05 * s
    if name.endswith("weight_g"):
        return np.full(shape, 0.8) if name.startswith("upsample_conv") else 1 + 0.1 * s
    if name.endswith("weight_v"):
        return s
    if name.endswith("scale"):
        return 0.05 * s
    return 0.02 * s  # biases, and the weight of the zero-initialised convolution


def _sizes(shape: object) -> list[str]:
    return [n for n in str(shape).strip("()[]").replace(",", " ").split() if n]
