"""Settings of a flow vocoder, and which can't be; ``--vocoder_conf`` takes them and those of the flow."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flowavenet_plugin.flow.prediction import CHANNELS, MEL_RANGE
from flowavenet_plugin.flow.settings import FlowSettings, setting

#: What becomes sound: standard normal noise; or pulses at the pitch as its mean where speech is voiced.
SOURCES = ("noise", "pulses")


@dataclass(frozen=True, kw_only=True)
class VocoderSettings(FlowSettings):
    """What a vocoder adds: a linear prediction around the flow, and the noise that becomes sound."""

    temperature: float = setting(0.8, "deviation of the noise in synthesis, from 0, unless decoding asks for another")
    prediction_order: int = setting(
        0, "samples that a linear prediction from the features looks back; 0: none", most=1024
    )
    prediction_channels: int = setting(CHANNELS, "channels of the network that tells its spectrum", most=16384)
    mel_range: Sequence[float] = setting(MEL_RANGE, "lowest and highest frequency of the features in Hz")
    source: str = setting("noise", "what becomes sound: noise, or pulses (at the pitch, and noise)")
    likelihood_weight: float = setting(1.0, "weight of the negative log-likelihood (nats/sample) in the loss")
    sampled_weight: float = setting(0.0, "weight of the distance in spectra of sampled speech from the recording")
    adversarial_weight: float = setting(0.0, "weight of discriminators that judge sampled speech; 0: there are none")
    discriminator_channels: int = setting(
        32, "channels of their first layers; the last have 16 times as many", most=16384
    )
    blur: float = setting(0.0, "share of training segments whose features are smoothed, as a TTS model's are")
    reader_channels: int = setting(
        0, "channels of a network that sharpens features and tells their pitch; 0: none", most=16384
    )
    reader_layers: int = setting(6, "its layers", most=1024)
    reader_weight: float = setting(1.0, "weight of its loss; 0: it stays as it is")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source not in SOURCES:
            raise ValueError(f"source must be one of {', '.join(SOURCES)}, not {self.source!r}")
        if self.source != "noise" and self.prediction_order == 0:
            raise ValueError(f"source={self.source} needs a linear prediction: prediction_order is 0")
        for name in ("likelihood_weight", "sampled_weight", "adversarial_weight", "blur", "reader_weight"):
            value = getattr(self, name)
            if not (0 <= value < math.inf) or (name == "blur" and value > 1):
                raise ValueError(f"{name} must be a number from 0{' to 1' if name == 'blur' else ''}, not {value}")
        if self.discriminator_channels < 2 or self.discriminator_channels % 2:
            raise ValueError(f"discriminator_channels must be an even number from 2, not {self.discriminator_channels}")
        if self.reader_channels < 0 or self.reader_layers < 1:
            raise ValueError(
                f"reader_channels must be at least 0 and reader_layers at least 1, not {self.reader_channels} and "
                f"{self.reader_layers}"
            )
        if not (self.trains_flow or self.trains_reader):
            raise ValueError(
                "likelihood_weight, sampled_weight and adversarial_weight are all 0, and no network reads features "
                "(reader_channels, reader_weight): nothing is learnt"
            )

    @property
    def trains_flow(self) -> bool:
        """Whether the flow learns anything."""
        return bool(self.likelihood_weight or self.sampled_weight or self.adversarial_weight)

    @property
    def trains_reader(self) -> bool:
        """Whether there is a network that reads features, and it learns anything."""
        return bool(self.reader_channels and self.reader_weight)

    @property
    def flow(self) -> dict[str, Any]:
        """What of it the flow takes."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(FlowSettings)}
