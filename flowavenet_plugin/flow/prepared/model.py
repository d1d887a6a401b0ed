"""The whole inverse for inference."""

from __future__ import annotations

import threading

import torch
from torch import Tensor, nn

from flowavenet_plugin.flow.arithmetic import arithmetic, own_arithmetic
from flowavenet_plugin.flow.conditioner import BlockConditioner
from flowavenet_plugin.flow.flowavenet import FloWaveNet
from flowavenet_plugin.flow.prepared.conds import BlockCondBuffer, CondBuffer
from flowavenet_plugin.flow.prepared.graphs import GraphedInverse
from flowavenet_plugin.flow.prepared.session import InverseSession
from flowavenet_plugin.flow.prepared.step import PreparedBlock
from flowavenet_plugin.flow.prepared.upsample import PreparedUpsampler

#: Samples of a whole batch that go through the flow at once: bounds the memory, and reads all weights rarely enough.
#: A GPU wants more of them.
CHUNK_SAMPLES, CUDA_CHUNK_SAMPLES = 2**17, 2**22
_MAKING = threading.Lock()


class PreparedFlow:
    """A :class:`FloWaveNet` with folded weights: its :meth:`FloWaveNet.inverse` only, faster and in bounded memory.

    It is made from the weights as they are and doesn't follow them when they change; :attr:`stale` tells. Several
    threads may use it at the same time.

    Example:
        >>> flow = FloWaveNet(n_mels=4, n_block=2, n_flow=2, filter_size=8, upsample_scales=(2, 4)).eval()
        >>> noise, cond = torch.randn(3, 1, 40), torch.randn(3, 4, 5)
        >>> torch.allclose(PreparedFlow(flow).inverse(noise, cond), flow.inverse(noise, cond), atol=1e-5)
        True
    """

    @torch.no_grad()
    def __init__(self, flow: FloWaveNet, dtype: torch.dtype | None = None, release: bool = False) -> None:
        """Fold the weights.

        Args:
            flow: The network.
            dtype: Precision inside the WaveNets, for instance ``torch.bfloat16``; samples and conditioning's upsampling
                keep that of the network. Default: the network's.
            release: Take the weights out of the network as they are folded, so that they are never there twice. The
                network has none afterwards.
        """
        self._flow = None if release else flow
        self._state = _state(flow)
        self.float_dtype, self.device = flow.blocks[0].steps[0].actnorm.loc.dtype, flow.device
        self.dtype = self.float_dtype if dtype is None else dtype
        self.n_mels, self.hop_length, self.column = flow.n_mels, flow.hop_length, flow.column
        with arithmetic(self.device):
            self._fold(flow, release)
        self._graphs: GraphedInverse | None = None

    def _fold(self, flow: FloWaveNet, release: bool) -> None:
        per_block = isinstance(flow.upsampler, BlockConditioner)
        self.upsampler = flow.upsampler if per_block else PreparedUpsampler(flow.upsampler)
        self.blocks: list[PreparedBlock] = []  # from the first to the last, as in the flow
        for i in reversed(range(len(flow.blocks))):  # the largest first, while there is memory
            made = PreparedBlock(flow.plan[i], flow.blocks[i], flow.n_mels, self.dtype)
            self.blocks.insert(0, made)
            if release:
                _release(flow.blocks[i], flow.blocks[:i])

    @property
    def stale(self) -> bool:
        """Whether the network's weights were replaced or changed since; a change through ``.data`` isn't seen.

        Weights that were made in inference mode always count as changed: nothing tells.
        """
        return self._flow is not None and (self._state is None or self._state != _state(self._flow))

    @property
    def graphs(self) -> GraphedInverse:
        """The same by CUDA graphs, for a GPU and utterances of seconds."""
        with _MAKING:
            if self._graphs is None:
                self._graphs = GraphedInverse(self)
        return self._graphs

    def cond_buffer(self, batch: int, lengths: Tensor | None) -> CondBuffer | BlockCondBuffer:
        """Start to make conditioning; arguments as in :meth:`session`."""
        kind = BlockCondBuffer if isinstance(self.upsampler, BlockConditioner) else CondBuffer
        return kind(self, batch, lengths)

    @own_arithmetic
    def session(self, batch: int = 1, lengths: Tensor | None = None) -> InverseSession:
        """Start to synthesise in pieces.

        Args:
            batch: Items side by side.
            lengths: Samples of each item, if they differ, shape (B,).
        """
        return InverseSession(self, batch, lengths)

    @own_arithmetic
    @torch.no_grad()
    def inverse(self, noise: Tensor, cond: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map noise to audio.

        Args:
            noise: Noise, shape (B, 1, T) with T = frames * hop_length.
            cond: Conditioning, shape (B, n_mels, frames).
            lengths: Samples of each item, shape (B,), as in :meth:`FloWaveNet.inverse`.

        Returns:
            Waveform, shape (B, 1, T), zero beyond ``lengths``.

        Raises:
            ValueError: If shapes don't fit each other or the model.
        """
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


def _release(block: nn.Module, others: nn.ModuleList) -> None:
    """Free a block's parameters, but for those that other blocks share."""
    shared = {id(parameter) for parameter in others.parameters()}
    for parameter in block.parameters():
        if id(parameter) not in shared:
            parameter.data = parameter.data.new_empty(0)


def _state(flow: FloWaveNet) -> list[tuple[int, int, torch.dtype, torch.device]] | None:
    """Return what tells whether weights have changed; None: nothing does, as tensors of inference mode don't count."""
    if any(parameter.is_inference() for parameter in flow.parameters()):
        return None
    return [(each.data_ptr(), each._version, each.dtype, each.device) for each in flow.parameters()]
