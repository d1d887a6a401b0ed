"""The distribution that a flow's noise is of."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Latent(NamedTuple):
    """A normal distribution of each sample, independent of the others.

    Attributes:
        mean: Shape (B, samples).
        deviation: Above 0, shape (B, samples).
    """

    mean: Tensor
    deviation: Tensor


def at(latent: Latent | None, noise: Tensor, temperature: float) -> Tensor:
    """Return what standard normal noise becomes, shape of ``noise``; temperature scales the noise alone.

    Args:
        latent: The distribution; None: standard normal.
        noise: Shape of the distribution's parts.
        temperature: Factor of the deviation.
    """
    return temperature * noise if latent is None else latent.mean + latent.deviation * (temperature * noise)
