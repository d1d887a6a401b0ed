"""The inverse for inference: weights folded once, samples in their order of time, in pieces of any size."""

from flowavenet_plugin.flow.synthesis.prepared_flow import PreparedFlow

__all__ = ["PreparedFlow"]
