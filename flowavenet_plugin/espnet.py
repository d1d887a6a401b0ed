"""``import flowavenet_plugin.espnet`` lets ESPnet2's Text2Speech, and every other task with a vocoder, use ours.

It stands for the call ``flowavenet_plugin.tasks.tts_adapter.install()``.
"""

from __future__ import annotations

from flowavenet_plugin.tasks.tts_adapter import install

install()
