"""The parameters of a gated stack: weight-normalised convolutions as matrices, and gradients back to the parameters."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowavenet_plugin.kernels import winograd
from flowavenet_plugin.kernels.backends import fewer_products_pay
from flowavenet_plugin.kernels.compiled import takes_floats
from flowavenet_plugin.kernels.convolution import DirectConvolution
from flowavenet_plugin.kernels.scratch import Memory, Scratch
from flowavenet_plugin.kernels.weight_norm import normalise, normalise_backward
from flowavenet_plugin.kernels.winograd import WinogradConvolution

#: From so many rows on it pays to put matrices in order, and fewer products for the sums around them, on a CPU.
MANY_ROWS = 400
#: Rows of a piece on a CPU, at most: the processor's cache holds its hidden states.
PIECE = 2048
#: The end convolution's scale works through an exponential of this slope.
SCALE_SLOPE = 3.0


@dataclass(frozen=True)
class Convolution:
    """Parameters of a weight-normalised convolution; ``gates`` > 0: of so many (filters, gates), filters doubled."""

    bias: Tensor  # (out_channels,)
    g: Tensor  # (out_channels, 1, 1)
    v: Tensor  # (out_channels, in_channels, taps)

    def factor(self, gates: int) -> Tensor:
        """Return 2 for filters and 1 for all else, shape (out_channels, 1)."""
        factor = self.g.new_ones(max(gates, 1), 2, self.g.shape[0] // (2 * max(gates, 1)))
        if gates:
            factor[:, 0] = 2
        return factor.view(-1, 1)

    def matrix(self, name: str, gates: int, dtype: torch.dtype, scratch: Scratch) -> Tensor:
        """Return the normalised weight (out_channels, in_channels * taps)."""
        v = self.v.flatten(1)
        out = scratch.take(f"weight_{name}", v.shape, v.new_empty(0, dtype=dtype))
        normalise(v, self._norms(gates), out)
        return out

    def for_rows(
        self, name: str, gates: int, dtype: torch.dtype, scratch: Scratch, rows: int
    ) -> tuple[Tensor, Tensor | None]:
        """Return a matrix (out_channels, in_channels), and factors (out_channels,) for its product with rows, or None.

        Beside few rows the weights are large: the factors, that make them normalised, go to the product.
        """
        v = self.v.flatten(1)
        if v.shape[1] <= rows:
            return self.matrix(name, gates, dtype, scratch), None
        out = v if v.dtype == dtype else scratch.take(f"weight_{name}", v.shape, v.new_empty(0, dtype=dtype)).copy_(v)
        return out, (self._norms(gates) / v.norm(dim=1, keepdim=True))[:, 0].to(dtype)

    def taps(self, name: str, gates: int, dtype: torch.dtype, scratch: Scratch) -> Tensor:
        """Return the normalised weight as a matrix per tap, (taps, out_channels, in_channels)."""
        return self.matrix(name, gates, dtype, scratch).view(self.v.shape).permute(2, 0, 1).contiguous()

    def dilated(self, layer: int, dtype: torch.dtype, scratch: Scratch, rows: int) -> DirectConvolution:
        """Return the convolution of the layer that has filters and gates."""
        dilation, size = 2**layer, self.v.shape[2]
        fewer = rows >= MANY_ROWS and size == 3 and winograd.TILE * dilation <= PIECE
        exact = dtype in (torch.float32, torch.float64)  # half precision is rounded as autocast's own products are
        if not (fewer and exact and fewer_products_pay(self.v.device, dtype, len(self.v) // 2)):
            return DirectConvolution(self.taps(f"dilated{layer}", 1, dtype, scratch), dilation)
        if dtype == torch.float32 and takes_floats(self.v):
            room = scratch.take(f"winograd_weight{layer}", (winograd.PLANES, *self.v.shape[:2]), self.v)
            winograd.transformed_normalised(self.v, self._norms(1), room)
        else:
            room = winograd.transformed(self.taps(f"dilated{layer}", 1, dtype, scratch))
        return WinogradConvolution(room, dilation)

    def dilated_backward(
        self, convolution: DirectConvolution, grad: Tensor, grad_bias: Tensor, memory: Memory
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As :meth:`backward`, from the gradient of the weight of what :meth:`dilated` returned."""
        if not (isinstance(convolution, WinogradConvolution) and takes_floats(self.v, grad)):
            return self.taps_backward(convolution.taps_gradient(grad), grad_bias, 1, memory)
        grad_v = memory.empty(self.v.shape, grad)
        grad_g = winograd.normalised_gradients(grad, self.v, self._norms(1), grad_v)
        factor = self.factor(1)
        return grad_bias * factor[:, 0], (grad_g * factor)[:, :, None], grad_v

    def backward(self, grad: Tensor, grad_bias: Tensor, gates: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of bias, g and v from those of :meth:`matrix`, which is lost, and of the bias."""
        grad_v = grad.to(self.v.dtype)
        grad_g = normalise_backward(grad_v, self.v.flatten(1), self._norms(gates))
        if gates:
            factor = self.factor(gates)
            grad_g, grad_bias = grad_g * factor, grad_bias * factor[:, 0]
        return grad_bias.to(self.bias.dtype), grad_g[:, :, None], grad_v.view(self.v.shape)

    def taps_backward(
        self, grad: Tensor, grad_bias: Tensor, gates: int, memory: Memory
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As :meth:`backward`, from the gradient of :meth:`taps`."""
        room = memory.empty(self.v.shape, grad)
        torch.movedim(room, 2, 0).copy_(grad)
        return self.backward(room.flatten(1), grad_bias, gates)

    def _norms(self, gates: int) -> Tensor:
        return self.g[:, :, 0] * self.factor(gates) if gates else self.g[:, :, 0]


def split_parameters(
    parameters: list[Tensor],
) -> tuple[Convolution, Convolution, list[Convolution], list[Convolution], Convolution, list[Tensor]]:
    """Return front, conditioning, the layers' dilated and out convolutions, skip, and what the end consists of."""
    convolutions = [Convolution(*parameters[k : k + 3]) for k in range(0, len(parameters) - 3, 3)]
    front, cond, *inner, skip = convolutions
    return front, cond, inner[0::2], inner[1::2], skip, parameters[-3:]
