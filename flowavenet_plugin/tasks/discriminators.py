"""HiFi-GAN's discriminators, which are ESPnet2's (Kong et al., arXiv 2010.05646)."""

from __future__ import annotations

from typing import Any

from espnet2.gan_tts.hifigan.hifigan import HiFiGANMultiPeriodDiscriminator, HiFiGANMultiScaleDiscriminator
from torch import Tensor, nn

PERIODS = [2, 3, 5, 7, 11]


class Discriminators(nn.Module):
    """One for each of several periods, and one for the waveform as it is."""

    def __init__(self, channels: int) -> None:
        """Build them.

        Args:
            channels: Of the first layers (twice as many for the waveform as it is); the last have 16 times as many.
                HiFi-GAN's have 32 and 128, and at most 1024.
        """
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
        period = dict(kernel_sizes=[5, 3], channels=channels, downsample_scales=[3, 3, 3, 3, 1])
        scale = dict(kernel_sizes=[15, 41, 5, 3], channels=2 * channels, downsample_scales=[2, 2, 4, 4, 1])
        self.periods = HiFiGANMultiPeriodDiscriminator(PERIODS, shared | period)
        self.scales = HiFiGANMultiScaleDiscriminator(
            scales=1, discriminator_params=shared | scale | dict(max_groups=channels)
        )

    def forward(self, wav: Tensor) -> list[list[Tensor]]:
        """Judge waveforms (B, 1, samples): of each discriminator what its layers say, the judgement last."""
        return self.periods(wav) + self.scales(wav)
