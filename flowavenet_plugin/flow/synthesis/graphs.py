"""The whole inverse as one launch: CUDA graphs, one for each of a few lengths that utterances are padded to.

The deep blocks work on few rows: on a GPU their hundreds of small kernels take less time than their launches. A graph
launches all at once, but for one length only; so utterances are padded to lengths of a coarse scale, and masked.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flowavenet_plugin.flow.arithmetic import own_arithmetic

#: A graph's function with its inputs, to be run again after other values were put into these.
Replay = Callable[[], Tensor]


def bucket(frames: int) -> int:
    """Return the least length of the scale that holds so many frames: multiples of 32, above 256 of an eighth.

    Example:
        >>> [bucket(frames) for frames in (1, 32, 33, 570, 1025)]
        [32, 32, 64, 576, 1152]
    """
    step = max(32, 2 ** (frames - 1).bit_length() // 16)
    return -(-frames // step) * step


def record_cuda_graph(function: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Replay:
    """Run a function on the current GPU and record what it launches.

    Args:
        function: Waits for the GPU nowhere; what it launches depends on shapes only.
        inputs: Its inputs; each replay reads the values that they hold then.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # libraries and kernels set themselves up outside of the recording
        for _ in range(2):
            function(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Other threads may go on: they use the GPU, and memory of it, while this one records.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        out = function(*inputs)

    def replay() -> Tensor:
        graph.replay()
        return out

    return replay


class GraphedInverse:
    """:meth:`~flowavenet_plugin.flow.synthesis.prepared_flow.PreparedFlow.inverse` by recorded graphs.

    Several threads may use it at the same time; they take turns, as a graph has one place for its inputs and output.
    """

    def __init__(
        self, flow: Any, limit: int = 8, max_frames: int = 8192, record: Callable[..., Replay] = record_cuda_graph
    ) -> None:
        """Start without a graph.

        Args:
            flow: The :class:`~flowavenet_plugin.flow.synthesis.prepared_flow.PreparedFlow`.
            limit: Graphs that are kept, each with the memory of its buffers; the one that was used longest ago goes.
            max_frames: Frames of a padded batch from which on launches don't matter, and no graph is made.
            record: Makes a replay of a function and its inputs.
        """
        self._flow, self._limit, self._max_frames, self._record = flow, limit, max_frames, record
        self._graphs: OrderedDict[tuple[int, int], tuple[tuple[Tensor, ...], Replay]] = OrderedDict()
        self._turn = threading.Lock()
        self._read: torch.cuda.Event | None = None  # when the last output was read

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_graphs": OrderedDict(), "_turn": None, "_read": None}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state, _turn=threading.Lock())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._flow.device

    @own_arithmetic
    @torch.no_grad()
    def inverse(self, noise: Tensor, cond: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Map noise to audio; arguments as of the prepared flow's."""
        (batch, _, frames), hop = cond.shape, self._flow.hop_length
        size = bucket(max(frames, 1))
        if batch * size > self._max_frames or tuple(noise.shape) != (batch, 1, frames * hop):
            return self._flow.inverse(noise, cond, lengths)  # shapes that don't fit are refused there
        with self._turn:
            if self._read is not None:  # perhaps on another stream than this thread's
                torch.cuda.current_stream().wait_event(self._read)
            inputs, replay = self._graph(batch, size)
            inputs[0].copy_(F.pad(noise, (0, (size - frames) * hop)))
            inputs[1].copy_(F.pad(cond, (0, size - frames)))
            inputs[2].copy_(inputs[2].new_full((batch,), frames * hop) if lengths is None else lengths)
            out = replay()[:, :, : frames * hop].clone()  # the next replay overwrites it
            self._read = torch.cuda.current_stream().record_event() if out.is_cuda else None
            return out

    def _graph(self, batch: int, size: int) -> tuple[tuple[Tensor, ...], Replay]:
        key = (batch, size)
        if key not in self._graphs:
            while len(self._graphs) >= self._limit:
                self._graphs.popitem(last=False)
            flow, samples = self._flow, size * self._flow.hop_length
            like = dict(dtype=flow.float_dtype, device=flow.device)
            inputs = (
                torch.zeros(batch, 1, samples, **like),
                torch.zeros(batch, flow.n_mels, size, **like),
                torch.full((batch,), samples, device=flow.device),
            )
            self._graphs[key] = inputs, self._record(flow.inverse, inputs)
        self._graphs.move_to_end(key)
        return self._graphs[key]
