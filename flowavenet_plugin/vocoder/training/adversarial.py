"""Discriminators that judge sampled speech, and learn in the same backward pass as the vocoder.

Least squares and feature matching, as in HiFi-GAN (Kong et al., arXiv 2010.05646). One sum of losses trains all: the
discriminators judge speech that gives the vocoder no gradient, and the vocoder is judged by discriminators that get
none. So the optimiser, its schedule, averages of weights, several processes and checkpoints are those of any training.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call

#: Weight of feature matching beside the judgement.
FEATURES = 2.0


class Adversary(nn.Module):
    """Discriminators with their losses."""

    def __init__(self, discriminators: nn.Module) -> None:
        """Keep them.

        Args:
            discriminators: Waveforms (B, 1, samples) in; out comes of each discriminator a list of what its layers say,
                the judgement last.
        """
        super().__init__()
        self.discriminators = discriminators

    def losses(self, made: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Compare sampled speech with recordings.

        Args:
            made: Sampled speech, shape (B, samples).
            wanted: Recordings, same shape.

        Returns:
            What the vocoder has to make small; what the discriminators have to; figures to report; 0-dim each.
        """
        real = self.discriminators(wanted[:, None])
        fake = self.discriminators(made.detach()[:, None])
        frozen = {name: value.detach() for name, value in self.discriminators.named_parameters()}
        judged = functional_call(self.discriminators, frozen, (made[:, None],))
        deceived = _mean((one[-1] - 1).square().mean() for one in judged)
        told = _mean((r[-1] - 1).square().mean() + f[-1].square().mean() for r, f in zip(real, fake, strict=True))
        matched = _mean(
            _mean((ours - theirs.detach()).abs().mean() for ours, theirs in zip(j[:-1], r[:-1], strict=True))
            for j, r in zip(judged, real, strict=True)
        )
        figures = dict(adversarial=deceived, feature_matching=matched, discriminator=told)
        return deceived + FEATURES * matched, told, figures


def _mean(values: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean()
