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
    """Parameters of a weight-normalised convolution.

    Attributes:
        name: Of its buffers.
        gates: Its channels are so many times (filters, gates), of which the filters are doubled; 0: neither.
        bias: Shape (out_channels,).
        g: Shape (out_channels, 1, 1).
        v: Shape (out_channels, in_channels, taps).
    """

    name: str
    gates: int
    bias: Tensor
    g: Tensor
    v: Tensor

    @property
    def factor(self) -> Tensor:
        """2 for filters and 1 for all else, shape (out_channels, 1)."""
        factor = self.g.new_ones(max(self.gates, 1), 2, self.g.shape[0] // (2 * max(self.gates, 1)))
        if self.gates:
            factor[:, 0] = 2
        return factor.view(-1, 1)

    def matrix(self, dtype: torch.dtype, scratch: Scratch) -> Tensor:
        """Return the normalised weight (out_channels, in_channels * taps)."""
        v = self.v.flatten(1)
        out = scratch.take(f"weight_{self.name}", v.shape, v.new_empty(0, dtype=dtype))
        normalise(v, self._norms(), out)
        return out

    def for_rows(self, dtype: torch.dtype, scratch: Scratch, rows: int) -> tuple[Tensor, Tensor | None]:
        """Return a matrix (out_channels, in_channels), and factors (out_channels,) for its product with rows, or None.

        Beside few rows the weights are large: the factors, that make them normalised, go to the product.
        """
        v = self.v.flatten(1)
        if v.shape[1] <= rows:
            return self.matrix(dtype, scratch), None
        room = scratch.take(f"weight_{self.name}", v.shape, v.new_empty(0, dtype=dtype)) if v.dtype != dtype else None
        factors = (self._norms() / v.norm(dim=1, keepdim=True))[:, 0].to(dtype)
        return (v if room is None else room.copy_(v)), factors

    def taps(self, dtype: torch.dtype, scratch: Scratch) -> Tensor:
        """Return the normalised weight as a matrix per tap, (taps, out_channels, in_channels)."""
        return self.matrix(dtype, scratch).view(self.v.shape).permute(2, 0, 1).contiguous()

    def dilated(self, dilation: int, dtype: torch.dtype, scratch: Scratch, rows: int) -> DirectConvolution:
        """Return the convolution of a layer, by fewer products if they pay for so many rows."""
        fewer = rows >= MANY_ROWS and self.v.shape[2] == 3 and winograd.TILE * dilation <= PIECE
        exact = dtype in (torch.float32, torch.float64)  # half precision is rounded as autocast's own products are
        if not (fewer and exact and fewer_products_pay(self.v.device, dtype, len(self.v) // 2)):
            return DirectConvolution(self.taps(dtype, scratch), dilation)
        if dtype == torch.float32 and takes_floats(self.v):
            room = scratch.take(f"winograd_{self.name}", (winograd.PLANES, *self.v.shape[:2]), self.v)
            winograd.transformed_normalised(self.v, self._norms(), room)
        else:
            room = winograd.transformed(self.taps(dtype, scratch))
        return WinogradConvolution(room, dilation)

    def dilated_backward(
        self, convolution: DirectConvolution, grad: Tensor, grad_bias: Tensor, memory: Memory
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As :meth:`backward`, from the gradient of the weight of what :meth:`dilated` returned."""
        if not (isinstance(convolution, WinogradConvolution) and takes_floats(self.v, grad)):
            return self.taps_backward(convolution.taps_gradient(grad), grad_bias, memory)
        grad_v, factor = memory.empty(self.v.shape, grad), self.factor
        grad_g = winograd.normalised_gradients(grad, self.v, self._norms(), grad_v)
        return grad_bias * factor[:, 0], (grad_g * factor)[:, :, None], grad_v

    def backward(self, grad: Tensor, grad_bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of bias, g and v from those of :meth:`matrix`, which is lost, and of the bias."""
        grad_v = grad.to(self.v.dtype)
        grad_g = normalise_backward(grad_v, self.v.flatten(1), self._norms())
        if self.gates:
            factor = self.factor
            grad_g, grad_bias = grad_g * factor, grad_bias * factor[:, 0]
        return grad_bias.to(self.bias.dtype), grad_g[:, :, None], grad_v.view(self.v.shape)

    def taps_backward(self, grad: Tensor, grad_bias: Tensor, memory: Memory) -> tuple[Tensor, Tensor, Tensor]:
        """As :meth:`backward`, from the gradient of :meth:`taps`."""
        room = memory.empty(self.v.shape, grad)
        torch.movedim(room, 2, 0).copy_(grad)
        return self.backward(room.flatten(1), grad_bias)

    def _norms(self) -> Tensor:
        return self.g[:, :, 0] * self.factor if self.gates else self.g[:, :, 0]


def split_parameters(
    parameters: list[Tensor],
) -> tuple[Convolution, Convolution, list[Convolution], list[Convolution], Convolution, list[Tensor]]:
    """Return front, conditioning, the layers' dilated and out convolutions, skip, and what the end consists of."""
    n = (len(parameters) - 12) // 6
    kinds = [("front", 0), ("cond", n), *(kind for i in range(n) for kind in ((f"dilated{i}", 1), (f"out{i}", 0)))]
    convolutions = [Convolution(*kind, *parameters[3 * k : 3 * k + 3]) for k, kind in enumerate([*kinds, ("skip", 0)])]
    front, cond, *inner, skip = convolutions
    return front, cond, inner[0::2], inner[1::2], skip, parameters[-3:]
