"""A WaveNet of a coupling or a split for inference, on rows of samples in their order of time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from flowavenet_plugin.flow.layout import bit_reversal
from flowavenet_plugin.flow.prepared.convolution import DilatedConvolution, WinogradConvolution
from flowavenet_plugin.flow.prepared.layout import cond_in_time
from flowavenet_plugin.flow.prepared.matrices import multiply, product
from flowavenet_plugin.kernels import fused
from flowavenet_plugin.kernels.choices import wants_compiled_products
from flowavenet_plugin.kernels.compiled import takes, takes_floats
from flowavenet_plugin.kernels.gated_stack import RESIDUAL
from flowavenet_plugin.kernels.products import Matrix, panels_shape
from flowavenet_plugin.kernels.scratch import Scratch
from flowavenet_plugin.kernels.stack_weights import SCALE_SLOPE

#: Values that a front convolution reads, up to which a library's product is slower than the compiled one.
SMALL_FRONT = 24
#: Values that an end convolution writes, likewise.
SMALL_END = 16
#: Conditioning of a half (0 or 1; None: all) for rows from first to last, shape (B, rows, values).
Cond = Callable[[int | None, int, int], Tensor]


class PreparedStack:
    """Weights of a :class:`~flowavenet_plugin.flow.wavenet.WaveNet` as matrices, and the forward pass with them.

    Weight norm, the end convolution's scale and what the caller hands over as ``end_scale`` and ``end_shift`` are
    folded in. tanh(f) sigmoid(g) = 2ab - b with a = sigmoid(2f), b = sigmoid(g): the factors are in the weights.
    The stack runs in ``dtype``, but what it predicts from its last hidden state is of the flow's precision.
    """

    #: Of a matrix (in, out), what the forward pass uses.
    kept = Matrix

    def __init__(
        self,
        net: nn.Module,
        n_mels: int,
        block: int,
        halves: tuple[int | None, ...],
        end_order: Tensor,
        end_scale: Tensor,
        end_shift: Tensor,
        dtype: torch.dtype,
    ) -> None:
        """Fold the weights.

        Args:
            net: The WaveNet.
            n_mels: Mel bands of the conditioning.
            block: Squeezes up to the context block.
            halves: Halves of the conditioning that it reads, in the order of its channels; (None,): all of what is
                made for the block.
            end_order: The prediction's channels that are wanted, in the order wanted, shape (out,).
            end_scale: Factor of each, shape (out,).
            end_shift: What is added to each, shape (out,).
            dtype: Precision of the stack.
        """
        front = net.front.conv.weight.detach()  # (width, channels, taps)
        self.width, channels, taps = front.shape
        causal, depth = net.front.left > 0, len(net.layers)
        order = bit_reversal(channels.bit_length() - 1).to(front.device)
        self.channels, self.halves, self.dtype = channels, halves, dtype
        self.front_left = taps - 1 if causal else taps // 2
        self.front = front[:, order].permute(2, 1, 0).reshape(taps * channels, self.width).contiguous()
        self.front_bias = net.front.conv.bias.detach()
        twice = torch.ones(2 * self.width, 1, device=front.device, dtype=front.dtype)
        twice[: self.width] = 2.0
        self._keep_layers(net, causal, twice)
        self._keep_cond(net, n_mels, block, twice, depth)
        self.skip = self.kept(self._matrix(net.skip.weight[:, :, 0]))
        self.skip_bias = net.skip.bias.detach().to(dtype)
        scale = end_scale * torch.exp(SCALE_SLOPE * net.end.scale.detach()[0, end_order, 0])
        self.end = (net.end.conv.weight.detach()[end_order, :, 0] * scale[:, None]).contiguous()
        self.end_bias = net.end.conv.bias.detach()[end_order] * scale + end_shift
        #: Rows before and after a row that its prediction depends on.
        self.left = self.front_left + sum(conv.left for conv in self.convolutions)
        self.right = taps - 1 - self.front_left + sum(conv.right for conv in self.convolutions)

    def _matrix(self, weight: Tensor) -> Tensor:
        """Turn (out, in) into (in, out) of the stack's precision."""
        return weight.detach().t().to(self.dtype).contiguous()

    def _keep_layers(self, net: nn.Module, causal: bool, twice: Tensor) -> None:
        self.convolutions: list[DilatedConvolution] = []
        self.residual, self.residual_bias, self.to_skip = [], [], []
        skip_bias = 0.0
        fewer = _fewer_products_pay(net.skip.bias.device, self.dtype, self.width)
        for i, layer in enumerate(net.layers):
            weight, out, bias = layer.dilated.conv.weight.detach(), layer.out.weight.detach()[:, :, 0], layer.out.bias
            taps = [(weight[:, :, j] * twice).t() for j in range(weight.shape[2])]
            kind = WinogradConvolution if fewer and len(taps) == 3 else DilatedConvolution
            self.convolutions.append(kind(taps, 2**i, causal).to(self.dtype))
            # The gate comes out negative, as b - 2ab.
            self.to_skip.append(self.kept(-self._matrix(out[-self.width :])))
            skip_bias = skip_bias + bias.detach()[-self.width :]
            if i + 1 < len(net.layers):
                self.residual.append(self.kept(-RESIDUAL * self._matrix(out[: self.width])))
                self.residual_bias.append((RESIDUAL * bias.detach()[: self.width]).to(self.dtype))
        self.skip_sum_bias = skip_bias.to(self.dtype)

    def _keep_cond(self, net: nn.Module, n_mels: int, block: int, twice: Tensor, depth: int) -> None:
        self.cond: list[list[Matrix]] = []  # per layer, per half: (2**block * bands, 2 * width)
        self.bias: list[Tensor] = []
        weights, biases = net.cond.weight.detach()[:, :, 0].chunk(depth), net.cond.bias.detach().chunk(depth)
        for layer, weight, bias in zip(net.layers, weights, biases, strict=True):
            parts = weight.chunk(len(self.halves), dim=1)
            in_time = (cond_in_time(part, n_mels, block, h) for part, h in zip(parts, self.halves, strict=True))
            self.cond.append([self.kept(self._matrix(part * twice)) for part in in_time])
            self.bias.append(((bias + layer.dilated.conv.bias.detach()) * twice[:, 0]).to(self.dtype))

    def __call__(
        self, x: Tensor, first: int, last: int, rows: int, cond: Cond, mask: Tensor | None, scratch: Scratch
    ) -> Tensor:
        """Predict for some rows.

        Args:
            x: Samples of rows ``first - left`` to ``last + right``, zero outside of the utterance, shape (B, values).
            first: First row to predict for.
            last: One beyond the last.
            rows: Rows of the utterance, or more if the end isn't known yet.
            cond: Gives the conditioning.
            mask: 1 for rows inside of each item, shape (B, rows, 1); None: all end at ``rows``.
            scratch: Buffers.

        Returns:
            Prediction, shape (B, last - first, out).
        """
        spans = [(first, last)]  # rows whose hidden states are needed, from the first layer's input to the last's gate
        for conv in reversed(self.convolutions):
            spans.insert(0, (max(0, spans[0][0] - conv.left), min(rows, spans[0][1] + conv.right)))
        hidden = self._hidden(0, spans, x.shape[0], scratch)
        self._run_front(x, first, spans[0], self._core(hidden, 0, spans), mask)
        skips = scratch.take("skips", (x.shape[0], last - first, self.width), self.skip_bias)
        for i, (start, end) in enumerate(spans[1:]):
            gate = self._gate(i, hidden, start, end, cond, scratch)
            wanted, is_last = gate[:, first - start : last - start], i + 1 == len(self.convolutions)
            bias = self.skip_sum_bias if is_last else None
            multiply(self.to_skip[i], wanted, skips, bias, other=skips if i else None, relu=is_last)
            if not is_last:
                following = self._hidden(i + 1, spans, x.shape[0], scratch)
                core = self._core(following, i + 1, spans)
                before = hidden[:, self.convolutions[i].left :][:, : end - start]
                multiply(self.residual[i], gate, core, self.residual_bias[i], other=before, factor=RESIDUAL)
                if mask is not None:
                    core.mul_(mask[:, start:end])
                hidden = following
        state = multiply(self.skip, skips, scratch.take("last", skips.shape, skips), self.skip_bias, relu=True)
        if len(self.end) > SMALL_END or not (takes_floats(self.end) and takes(state)):
            return torch.matmul(state.to(self.end.dtype), self.end.t()).add_(self.end_bias)
        out = scratch.take("end", (*state.shape[:2], len(self.end)), self.end)
        fused.end(state.flatten(0, 1), self.end, self.end_bias, out.flatten(0, 1))
        return out

    def _hidden(self, i: int, spans: list[tuple[int, int]], batch: int, scratch: Scratch) -> Tensor:
        """Return room for the i-th layer's input, with rows of zeros where its convolution reaches beyond the ends."""
        (start, end), (first, last), conv = spans[i], spans[i + 1], self.convolutions[i]
        length = conv.padded(last - first) + conv.left + conv.right
        hidden = scratch.take(f"hidden{i % 2}", (batch, length, self.width), self.skip_bias)
        before = start - (first - conv.left)
        hidden[:, :before].zero_()
        hidden[:, before + end - start :].zero_()
        return hidden

    def _core(self, hidden: Tensor, i: int, spans: list[tuple[int, int]]) -> Tensor:
        (start, end), (first, _) = spans[i], spans[i + 1]
        before = start - (first - self.convolutions[i].left)
        return hidden[:, before : before + end - start]

    def _run_front(self, x: Tensor, first: int, span: tuple[int, int], out: Tensor, mask: Tensor | None) -> None:
        start, end = span
        window = x[:, (start - self.front_left - first + self.left) * self.channels :]
        columns = window.unfold(1, self.front.shape[0], self.channels)[:, : end - start]
        if self.front.dtype == torch.float32 and len(self.front) <= SMALL_FRONT and takes(out):
            for item, made in zip(window, out, strict=True):
                fused.front(item.contiguous(), self.channels, self.front, self.front_bias, made)
        elif self.front.dtype == self.dtype:
            product(columns, self.front, out, self.front_bias).relu_()
        else:
            out.copy_(torch.matmul(columns, self.front).add_(self.front_bias).relu_())
        if mask is not None:
            out.mul_(mask[:, start:end])

    def _gate(self, i: int, hidden: Tensor, start: int, end: int, cond: Cond, scratch: Scratch) -> Tensor:
        """Return the i-th layer's gate, negative, for rows from start to end, shape (B, end - start, width)."""
        conv, count = self.convolutions[i], end - start
        out = scratch.take("gates", (hidden.shape[0], conv.padded(count), 2 * self.width), hidden)
        for k, (half, weight) in enumerate(zip(self.halves, self.cond[i], strict=True)):
            multiply(weight, cond(half, start, end), out[:, :count], other=out[:, :count] if k else None)
        gate = scratch.take("gate", (hidden.shape[0], count, self.width), hidden)
        return conv.gate(out, hidden, self.bias[i], gate, scratch)


def _fewer_products_pay(device: torch.device, dtype: torch.dtype, width: int) -> bool:
    """Say whether products cost more than the sums that fewer of them need.

    Not where there are units for matrices. In half precision not without the compiled functions either: torch rounds
    between the sums, which large factors (up to 32) then make larger; plain products are faster there and more exact.
    """
    if device.type != "cpu":
        return False
    if dtype in (torch.float32, torch.float64):
        return True
    return wants_compiled_products(dtype) and panels_shape(width, 2 * width, dtype) is not None
