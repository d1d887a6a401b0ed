"""A WaveNet of a coupling or a split with folded weights, on rows of samples in their order of time."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from flowavenet_plugin.flow.layout import bit_reversal, cond_in_time
from flowavenet_plugin.flow.plan import Step
from flowavenet_plugin.flow.wavenet import WaveNet
from flowavenet_plugin.kernels import gated_stack
from flowavenet_plugin.kernels.backends import RESIDUAL, choose_backend, fewer_products_pay
from flowavenet_plugin.kernels.convolution import DirectConvolution
from flowavenet_plugin.kernels.gated_stack import Span
from flowavenet_plugin.kernels.rows import Marked
from flowavenet_plugin.kernels.scratch import Scratch
from flowavenet_plugin.kernels.stack_parameters import SCALE_SLOPE
from flowavenet_plugin.kernels.stack_shape import FRONT_KERNEL_SIZE
from flowavenet_plugin.kernels.stack_weights import StackWeights
from flowavenet_plugin.kernels.winograd import WinogradConvolution

#: Conditioning of a half (0 or 1; None: all) for columns from first to last, shape (B, columns, values).
Cond = Callable[[int | None, int, int], Tensor]


class FoldedStack:
    """Weights of a :class:`~flowavenet_plugin.flow.wavenet.WaveNet` with all folded in that samples don't change.

    That is weight norm, the end convolution's scale and what the caller hands over for it. The stack runs in ``dtype``,
    but what it reads samples with, and predicts from its last hidden state, is of the flow's precision.
    """

    def __init__(
        self,
        step: Step,
        net: WaveNet,
        n_mels: int,
        level: int,
        end: tuple[Tensor, Tensor, Tensor],
        dtype: torch.dtype,
    ) -> None:
        """Fold the weights of a step's WaveNet, in a block of this level.

        ``end``: the prediction's channels that are wanted, in order, their factors, and what is added, (out,) each.
        """
        self.shape, self.halves, self.dtype = step.stack, step.conds or (None,), dtype
        self.channels = net.front.conv.weight.shape[1]
        self.weights = self._folded(net, end)
        self._put_matrices(net, n_mels, level)
        #: Rows before and after a row that its prediction depends on.
        self.left = self.shape.reach
        self.right = FRONT_KERNEL_SIZE - 1 + sum(conv.reach for conv in self.weights.dilated) - self.left

    def _folded(self, net: WaveNet, end: tuple[Tensor, Tensor, Tensor]) -> StackWeights:
        """Fold all but what multiplies rows."""
        n, dtype, (end_order, end_scale, end_shift) = self.shape.n_layer, self.dtype, end
        front = net.front.conv.weight.detach()  # (width, channels, taps)
        device, width, twice = front.device, len(front), self._twice(net)
        order = bit_reversal(self.channels.bit_length() - 1).to(device)
        outs, convs = [layer.out.bias.detach() for layer in net.layers], [layer.dilated.conv for layer in net.layers]
        biases = zip(net.cond.bias.detach().chunk(n), convs, strict=True)
        scale = end_scale * torch.exp(SCALE_SLOPE * net.end.scale.detach()[0, end_order, 0])
        return StackWeights(
            self.shape,
            {},
            front=front[:, order].permute(2, 1, 0).reshape(-1, width).contiguous(),
            front_bias=net.front.conv.bias.detach(),
            dilated=[self._dilated(conv.weight.detach() * twice[:, :, None], 2**i) for i, conv in enumerate(convs)],
            bias=[((own + conv.bias.detach()) * twice[:, 0]).to(dtype) for own, conv in biases],
            residual_bias=[(RESIDUAL * own[:width]).to(dtype) for own in outs[:-1]],
            skip_sum_bias=sum(own[-width:] for own in outs).to(dtype),
            skip_bias=net.skip.bias.detach().to(dtype),
            end=(net.end.conv.weight.detach()[end_order, :, 0] * scale[:, None]).contiguous(),
            end_bias=net.end.conv.bias.detach()[end_order] * scale + end_shift,
            backend=choose_backend(device, dtype),
        )

    def _put_matrices(self, net: WaveNet, n_mels: int, level: int) -> None:
        """Fold what multiplies rows, one at a time: the largest are hardly there twice."""
        twice, width = self._twice(net), self.weights.width
        self.weights.put("skip", 0, net.skip.weight.detach()[:, :, 0].to(self.dtype))
        for i, weight in enumerate(net.cond.weight.detach()[:, :, 0].chunk(self.shape.n_layer)):
            parts = weight.chunk(len(self.halves), dim=1)
            for k, (part, half) in enumerate(zip(parts, self.halves, strict=True)):
                in_time = cond_in_time(part, n_mels, level, half) * twice
                self.weights.put(f"cond{k}" if k else "cond", i, in_time.to(self.dtype))
        for i, layer in enumerate(net.layers):
            out = layer.out.weight.detach()[:, :, 0].to(self.dtype)
            self.weights.put("to_skip", i, out[-width:])
            if len(out) > width:
                self.weights.put("to_residual", i, out[:width])

    @staticmethod
    def _twice(net: WaveNet) -> Tensor:
        """Return 2 for filters and 1 for gates, shape (2 * width, 1)."""
        bias = net.skip.bias.detach()
        return torch.cat([torch.full_like(bias, 2), torch.ones_like(bias)])[:, None]

    def _dilated(self, weight: Tensor, dilation: int) -> DirectConvolution:
        """Fold a convolution (2 * width, width, taps)."""
        taps = weight.permute(2, 0, 1)
        if len(taps) == 3 and fewer_products_pay(weight.device, self.dtype, weight.shape[1]):
            return WinogradConvolution.folded(taps, dilation, self.dtype)
        return DirectConvolution(taps.to(self.dtype).contiguous(), dilation)

    def predict(
        self, x: Tensor, first: int, last: int, total: int, cond: Cond, item: int, inside: Marked, scratch: Scratch
    ) -> Tensor:
        """Predict for the rows of one item from ``first`` to before ``last``, shape (last - first, out).

        Args:
            x: Samples of rows ``first - left`` to ``last + right``, zero outside of the utterance, shape (values,).
            first: See above.
            last: See above.
            total: Rows of the utterance, or more if the end isn't known yet.
            cond: Gives the conditioning.
            item: Which one it is.
            inside: What is outside of it.
            scratch: Buffers.
        """

        def rows_of(start: int, end: int) -> list[Tensor]:
            return [cond(half, start, end)[item] for half in self.halves]

        span = Span(first, last, total, first - self.left)
        return gated_stack.forward(self.weights, x.view(-1, self.channels), rows_of, span, inside, scratch)[0]

    def predict_batch(
        self, x: Tensor, first: int, last: int, total: int, cond: Cond, ends: Tensor | None, scratch: Scratch
    ) -> Tensor:
        """Predict for some rows of all items at once, which lie below each other with all rows that they depend on.

        As :meth:`predict`, but ``x`` has the shape (B, values), what is returned (B, last - first, out), and ``ends``
        are the rows of each item, shape (B,); None: all have ``total``.
        """
        batch, start, count = len(x), first - self.left, last + self.right - (first - self.left)
        places = torch.arange(start, start + count, device=x.device)
        inside = (places >= 0) & (places < (total if ends is None else ends[:, None]))
        mask = inside.expand(batch, -1).reshape(-1, 1).to(self.dtype)
        low, high = max(0, start), min(total, start + count)
        margins = 0, 0, low - start, start + count - high
        parts = [F.pad(cond(half, low, high), margins).flatten(0, 1) for half in self.halves]

        def rows_of(start: int, end: int) -> list[Tensor]:
            return [part[start:end] for part in parts]

        span = Span(self.left, batch * count - self.right, batch * count, 0)
        rows = x.reshape(-1, self.channels)
        out = gated_stack.forward(self.weights, rows, rows_of, span, Marked(mask, 0), scratch)[0]
        return out.as_strided((batch, last - first, out.shape[1]), (count * out.shape[1], out.shape[1], 1))
