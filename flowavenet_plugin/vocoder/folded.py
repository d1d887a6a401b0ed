"""The folded weights of a vocoder's flow, for several threads."""

from __future__ import annotations

import threading

import torch

from flowavenet_plugin.flow.flowavenet import FloWaveNet
from flowavenet_plugin.flow.synthesis import PreparedFlow


class FoldedWeights:
    """Folds a flow's weights when they are first needed, and again when they have changed; one thread at a time."""

    def __init__(self) -> None:
        """Start without any."""
        self._made: PreparedFlow | None = None
        self._lock = threading.Lock()
        #: Whether the flow's own weights are gone.
        self.alone = False

    def get(self, flow: FloWaveNet, dtype: torch.dtype | None) -> PreparedFlow:
        """Return the weights as they are now.

        Args:
            flow: The network.
            dtype: As in :class:`PreparedFlow`; default: what :meth:`keep_alone` was given, else that of the weights.

        Raises:
            ValueError: If the network's own weights are gone and another precision is asked for.
        """
        with self._lock:
            made = self._made
            if self.alone:
                if dtype not in (None, made.dtype):
                    raise ValueError(f"this vocoder is for inference in {made.dtype} only, not in {dtype}")
            elif made is None or made.dtype != (made.float_dtype if dtype is None else dtype) or made.stale:
                made = self._made = None  # frees the memory first
                made = self._made = PreparedFlow(flow, dtype)
            return made

    def keep_alone(self, flow: FloWaveNet, dtype: torch.dtype | None) -> bool:
        """Fold the weights and take them out of the network; return whether that wasn't done before."""
        with self._lock:
            if self.alone:
                return False
            self._made = None
            self._made, self.alone = PreparedFlow(flow, dtype, release=True), True
            return True

    def forget(self) -> None:
        """Free the memory, if the weights can be folded anew."""
        with self._lock:
            self._made = self._made if self.alone else None

    def need_originals(self, use: str) -> None:
        """Raise ValueError if the network's own weights, needed to ``use``, are gone."""
        if self.alone:
            raise ValueError(f"this vocoder is for inference only now: it has no weights to {use}")

    def refuse_to_save(self, *_: object) -> None:
        """Be a hook that is called before a state dict is made."""
        self.need_originals("save")

    def __getstate__(self) -> dict[str, object]:
        return dict(_made=self._made if self.alone else None, alone=self.alone)

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())
