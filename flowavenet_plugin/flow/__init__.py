"""The invertible network of FloWaveNet (arXiv 1811.02155); needs torch only."""

from flowavenet_plugin.flow.flowavenet import FloWaveNet

__all__ = ["FloWaveNet"]
