"""A network that reads features before they become sound: what they would be of speech, and their pitch."""

from flowavenet_plugin.vocoder.reading.network import MelReader, Reading

__all__ = ["MelReader", "Reading"]
