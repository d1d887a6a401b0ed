"""The whole inverse for inference."""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from flowavenet_plugin.flow.arithmetic import own_arithmetic
from flowavenet_plugin.flow.synthesis.folded_flow import FoldedFlow
from flowavenet_plugin.flow.synthesis.graphs import GraphedInverse
from flowavenet_plugin.flow.synthesis.session import InverseSession

#: Samples of a whole batch that go through the flow at once: bounds the memory, and reads all weights rarely enough.
#: A GPU wants more of them.
CHUNK_SAMPLES, CUDA_CHUNK_SAMPLES = 2**17, 2**22
_MAKING = threading.Lock()


class PreparedFlow(FoldedFlow):
    """A :class:`FloWaveNet` with folded weights: its :meth:`FloWaveNet.inverse` only, faster and in bounded memory.

    It is made from the weights as they are and doesn't follow them when they change; :attr:`stale` tells. Several
    threads may use it at the same time.

    Example:
        >>> from flowavenet_plugin.flow import FloWaveNet
        >>> flow = FloWaveNet(n_mels=4, n_block=2, n_flow=2, filter_size=8, upsample_scales=(2, 4)).eval()
        >>> noise, cond = torch.randn(3, 1, 40), torch.randn(3, 4, 5)
        >>> torch.allclose(PreparedFlow(flow).inverse(noise, cond), flow.inverse(noise, cond), atol=1e-5)
        True
    """

    _graphs: GraphedInverse | None = None

    @property
    def graphs(self) -> GraphedInverse:
        """The same by CUDA graphs, for a GPU and utterances of seconds."""
        with _MAKING:
            if self._graphs is None:
                self._graphs = GraphedInverse(self)
        return self._graphs

    @own_arithmetic
    def session(self, batch: int = 1, lengths: Tensor | None = None) -> InverseSession:
        """Start to synthesise in pieces; arguments as of :class:`InverseSession`."""
        return InverseSession(self, batch, lengths)

    @own_arithmetic
    @torch.no_grad()
    def inverse(self, noise: Tensor, cond: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map noise to audio; arguments, result and errors are those of :meth:`FloWaveNet.inverse`."""
        batch, frames = cond.shape[0], cond.shape[2]
        if tuple(noise.shape) != (batch, 1, frames * self.hop_length) or cond.shape[1] != self.n_mels:
            raise ValueError(
                f"noise of shape {tuple(noise.shape)} and conditioning of shape {tuple(cond.shape)} don't fit "
                f"n_mels={self.n_mels} and {self.hop_length} samples per frame"
            )
        noise = noise.to(self.float_dtype)
        session = self.session(batch, lengths)
        chunk = CUDA_CHUNK_SAMPLES if noise.is_cuda else CHUNK_SAMPLES
        most = max(1, chunk // (self.hop_length * batch))
        step = -(-frames // max(1, -(-frames // most)))  # chunks of one size
        out = torch.empty(batch, noise.shape[2], dtype=noise.dtype, device=noise.device)
        done = 0
        for first in range(0, frames, step):
            last = min(first + step, frames)
            samples = noise[:, 0, first * self.hop_length : last * self.hop_length]
            piece = session.push(samples, cond[:, :, first:last].transpose(1, 2), final=last == frames)
            out[:, done : done + piece.shape[1]] = piece
            done += piece.shape[1]
        return out[:, None]
