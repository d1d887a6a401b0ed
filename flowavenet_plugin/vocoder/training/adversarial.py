"""Discriminators that judge sampled speech, and learn in the same backward pass as the vocoder.

The parts are ESPnet2's: HiFi-GAN's discriminators of several periods and scales (Kong et al., arXiv 2010.05646), least
squares, feature matching. One sum of losses trains all: the discriminators judge speech that gives the vocoder no
gradient, and the vocoder is judged by discriminators that get none. So the optimiser, its schedule, averages of
weights, several processes and checkpoints are those of any other training.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

Judgements = list[list[Tensor]]
PERIODS = (2, 3, 5, 7, 11)


class Adversary(nn.Module):
    """Discriminators with their losses."""

    def __init__(self, channels: int, feature_weight: float = 2.0) -> None:
        """Build the discriminators.

        Args:
            channels: Of the first layer; later layers have up to 16 times as many. HiFi-GAN has 32 for periods and 128
                for scales.
            feature_weight: Weight of feature matching beside the judgement.

        Raises:
            ValueError: If ``channels`` isn't at least 1.
        """
        from espnet2.gan_tts.hifigan.hifigan import HiFiGANMultiPeriodDiscriminator, HiFiGANMultiScaleDiscriminator

        if channels < 1:
            raise ValueError(f"discriminator_channels must be at least 1, not {channels}")
        super().__init__()
        shared: dict[str, Any] = dict(
            in_channels=1,
            out_channels=1,
            bias=True,
            nonlinear_activation="LeakyReLU",
            nonlinear_activation_params=dict(negative_slope=0.1),
            use_weight_norm=True,
            use_spectral_norm=False,
            max_downsample_channels=16 * channels,
        )
        period = shared | dict(kernel_sizes=[5, 3], channels=channels, downsample_scales=[3, 3, 3, 3, 1])
        scale = shared | dict(
            kernel_sizes=[15, 41, 5, 3], channels=2 * channels, downsample_scales=[2, 2, 4, 4, 1], max_groups=channels
        )
        self.periods = HiFiGANMultiPeriodDiscriminator(list(PERIODS), period)
        self.scales = HiFiGANMultiScaleDiscriminator(scales=1, discriminator_params=scale)
        self.feature_weight = feature_weight

    def forward(self, wav: Tensor) -> Judgements:
        """Judge waveforms (B, 1, samples): of each discriminator the outputs of all layers, the last the judgement."""
        return self.periods(wav) + self.scales(wav)

    def losses(self, made: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Compare sampled speech with recordings.

        Args:
            made: Sampled speech, shape (B, samples).
            wanted: Recordings, same shape.

        Returns:
            What the vocoder has to make small; what the discriminators have to; figures to report; 0-dim each.
        """
        real = self(wanted[:, None])
        fake = self(made.detach()[:, None])
        frozen = {name: value.detach() for name, value in self.named_parameters()}
        judged = functional_call(self, frozen, (made[:, None],))
        deceived = _mean((one[-1] - 1).square().mean() for one in judged)
        told = _mean((r[-1] - 1).square().mean() + f[-1].square().mean() for r, f in zip(real, fake, strict=True))
        matched = _mean(
            _mean((ours - theirs.detach()).abs().mean() for ours, theirs in zip(j[:-1], r[:-1], strict=True))
            for j, r in zip(judged, real, strict=True)
        )
        figures = dict(adversarial=deceived, feature_matching=matched, discriminator=told)
        return deceived + self.feature_weight * matched, told, figures


def _mean(values: Any) -> Tensor:
    values = list(values)
    return torch.stack(values).mean()
