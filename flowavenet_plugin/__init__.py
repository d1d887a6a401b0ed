"""FloWaveNet, a flow-based neural vocoder that plugs into ESPnet2.

``from flowavenet_plugin import load_vocoder`` loads a trained vocoder. Importing the package itself costs nothing:
``load_vocoder`` brings in torch only when it is asked for.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "load_vocoder"]


def __getattr__(name: str) -> Any:
    """Import ``load_vocoder`` on first use (PEP 562).

    Raises:
        AttributeError: If ``name`` is anything else that the package does not have.
    """
    if name == "load_vocoder":
        from flowavenet_plugin.vocoder.loading import load_vocoder

        return load_vocoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
