"""The WaveNet of a step on a GPU: few launches, and the gates never go to memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowavenet_plugin.flow.prepared.matrices import add_product, product
from flowavenet_plugin.flow.prepared.stack import Cond, PreparedStack
from flowavenet_plugin.kernels.gated_product import choose_gated_product
from flowavenet_plugin.kernels.gated_stack import RESIDUAL
from flowavenet_plugin.kernels.scratch import Scratch


class CudaStack(PreparedStack):
    """As :class:`PreparedStack`, with gates and the products behind them in one kernel each."""

    kept = staticmethod(lambda weight: weight)

    def __init__(self, *args: object) -> None:
        """Fold the weights; arguments as in :class:`PreparedStack`."""
        super().__init__(*args)
        self.gated_product = choose_gated_product(self.skip.device, self.skip.dtype)

    def __call__(
        self, x: Tensor, first: int, last: int, rows: int, cond: Cond, mask: Tensor | None, scratch: Scratch
    ) -> Tensor:
        """Predict for some rows; see :meth:`PreparedStack.__call__`."""
        spans = [(first, last)]
        for conv in reversed(self.convolutions):
            spans.insert(0, (max(0, spans[0][0] - conv.left), min(rows, spans[0][1] + conv.right)))
        hidden = self._hidden(0, spans, x.shape[0], scratch)
        self._run_front(x, first, spans[0], self._core(hidden, 0, spans), mask)
        skips = scratch.take("skips", (x.shape[0], last - first, self.width), self.skip)
        for i, (start, end) in enumerate(spans[1:]):
            pre = self._before_gate(i, hidden, start, end, cond, scratch)
            base, bias = (None, self.skip_sum_bias) if i == 0 else (skips, None)
            self.gated_product(pre[:, first - start : last - start], self.to_skip[i], bias, base, 1.0, None, skips)
            if i + 1 < len(self.convolutions):
                following = self._hidden(i + 1, spans, x.shape[0], scratch)
                core = self._core(following, i + 1, spans)
                base = hidden[:, self.convolutions[i].left :][:, : end - start]
                inside = None if mask is None else mask[:, start:end]
                self.gated_product(pre, self.residual[i], self.residual_bias[i], base, RESIDUAL, inside, core)
                hidden = following
        state = product(skips.relu_(), self.skip, scratch.take("last", skips.shape, skips), self.skip_bias).relu_()
        return torch.matmul(state.to(self.end.dtype), self.end.t()).add_(self.end_bias)

    def _before_gate(self, i: int, hidden: Tensor, start: int, end: int, cond: Cond, scratch: Scratch) -> Tensor:
        """Return what the i-th layer's sigmoids get for rows from start to end, shape (B, end - start, 2 * width)."""
        conv, count = self.convolutions[i], end - start
        out = scratch.take("gates", (hidden.shape[0], conv.padded(count), 2 * self.width), hidden)
        product(cond(self.halves[0], start, end), self.cond[i][0], out[:, :count], self.bias[i])
        for half, weight in zip(self.halves[1:], self.cond[i][1:], strict=True):
            add_product(out[:, :count], cond(half, start, end), weight)
        conv.add_to(out, hidden, scratch)
        return out[:, :count]


def make_stack(net: nn.Module, *args: object) -> PreparedStack:
    """Fold a WaveNet's weights for the device that they are on; arguments as in :class:`PreparedStack`."""
    return (CudaStack if net.skip.bias.device.type == "cuda" else PreparedStack)(net, *args)
