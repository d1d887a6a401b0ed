"""What the noise of a flow has besides noise: pulses at the pitch, so that the network needn't invent each of them."""

from flowavenet_plugin.vocoder.source.latent import Latent, at
from flowavenet_plugin.vocoder.source.pulses import PulseSource

__all__ = ["Latent", "PulseSource", "at"]
