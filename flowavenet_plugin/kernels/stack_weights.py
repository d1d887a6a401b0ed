"""The parameters of a gated stack as the matrices that its products read, and gradients back to the parameters."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from flowavenet_plugin.kernels.scratch import Scratch
from flowavenet_plugin.kernels.weight_norm import normalise, normalise_backward

#: The end convolution's scale works through an exponential of this slope.
SCALE_SLOPE = 3.0


@dataclass(frozen=True)
class StackShape:
    """What the parameters' shapes don't say.

    Attributes:
        n_layer: Dilated layers; layer i has dilation 2**i.
        causal: Convolutions reach to the past only.
    """

    n_layer: int
    causal: bool

    @property
    def n_parameters(self) -> int:
        """How many tensors :meth:`StackWeights.of` takes."""
        return 3 * (2 * self.n_layer + 3) + 3

    def offsets(self, kernel_size: int, dilation: int) -> list[int]:
        """Rows from an output to the inputs that each tap reads."""
        first = -(kernel_size - 1) * dilation
        return [(first if self.causal else first // 2) + k * dilation for k in range(kernel_size)]

    def reach(self, kernel_size: int, front_kernel_size: int) -> int:
        """Rows that the widest convolution reaches to one side."""
        widest = max(front_kernel_size - 1, (kernel_size - 1) * 2 ** (self.n_layer - 1))
        return widest if self.causal else widest // 2


@dataclass
class StackWeights:
    """Matrices of a stack; of filters and gates the filters are doubled. Also holds gradients of the same."""

    front: Tensor | None = None  # (width, taps * in_channels)
    front_bias: Tensor | None = None
    cond_of_all: Tensor | None = None  # (layers * 2 * width, cond_channels)
    cond: list[Tensor] = field(default_factory=list)  # its parts: per layer (2 * width, cond_channels)
    cond_scale: list[Tensor] = field(default_factory=list)  # per layer (2 * width,): factor of what ``cond`` gives
    bias: list[Tensor] = field(default_factory=list)  # per layer (2 * width,): conditioning and convolution
    taps: list[Tensor] = field(default_factory=list)  # per layer (taps, 2 * width, width)
    to_residual: list[Tensor | None] = field(default_factory=list)  # per layer (width, width); none in the last
    residual_bias: list[Tensor | None] = field(default_factory=list)
    to_skip: list[Tensor] = field(default_factory=list)  # per layer (width, width)
    skip_sum_bias: Tensor | None = None  # (width,): of all layers
    skip: Tensor | None = None  # (width, width)
    skip_bias: Tensor | None = None
    end: Tensor | None = None  # (out_channels, width), scaled
    end_bias: Tensor | None = None
    front_offsets: list[int] = field(default_factory=list)
    offsets: list[list[int]] = field(default_factory=list)

    @property
    def width(self) -> int:
        """Channels of the hidden states."""
        return self.skip.shape[0]

    @classmethod
    def of(cls, shape: StackShape, parameters: list[Tensor], dtype: torch.dtype, scratch: Scratch) -> StackWeights:
        """Compute the matrices.

        Args:
            shape: Of the stack.
            parameters: Bias, norms and directions of the convolutions in the order front, conditioning, (dilated, out)
                per layer, skip; then weight, bias and scale of the end. As in the state dict, without gradients.
            dtype: Of the matrices.
            scratch: Holds the matrices.
        """
        n = shape.n_layer
        convolutions = [_Convolution(*parameters[k : k + 3]) for k in range(0, len(parameters) - 3, 3)]
        front, cond, *inner, skip = convolutions
        dilated, outs = inner[0::2], inner[1::2]
        end, end_bias, scale = parameters[-3:]
        width = skip.v.shape[0]
        cond_bias = cond.bias.view(n, -1) * cond.factor(n)[: 2 * width, 0]
        all_cond, cond_scale = cond.directions("cond", n, dtype, scratch)
        made = cls(
            front=front.taps("front", 0, dtype, scratch).transpose(0, 1).flatten(1),
            front_bias=front.bias.to(dtype),
            cond_of_all=all_cond,
            cond=list(all_cond.chunk(n)),
            cond_scale=list(cond_scale.chunk(n)),
            taps=[conv.taps(f"dilated{i}", 1, dtype, scratch) for i, conv in enumerate(dilated)],
            skip=skip.matrix("skip", 0, dtype, scratch),
            skip_bias=skip.bias.to(dtype),
            end=(end[:, :, 0] * torch.exp(SCALE_SLOPE * scale[0])).to(dtype),
            end_bias=(end_bias * torch.exp(SCALE_SLOPE * scale[0, :, 0])).to(dtype),
            front_offsets=shape.offsets(front.v.shape[2], 1),
            offsets=[shape.offsets(conv.v.shape[2], 2**i) for i, conv in enumerate(dilated)],
        )
        made.bias = [(conv.bias * conv.factor(1)[:, 0] + cond_bias[i]).to(dtype) for i, conv in enumerate(dilated)]
        for i, conv in enumerate(outs):
            matrix = conv.matrix(f"out{i}", 0, dtype, scratch)
            made.to_residual.append(matrix[:-width] if len(matrix) > width else None)
            made.residual_bias.append(conv.bias[:-width].to(dtype) if len(matrix) > width else None)
            made.to_skip.append(matrix[-width:])
        made.skip_sum_bias = torch.stack([conv.bias[-width:] for conv in outs]).sum(dim=0).to(dtype)
        return made

    def empty_gradients(self, scratch: Scratch) -> StackWeights:
        """Return room for the gradients; the largest, that of ``cond``, lies in ``scratch``."""
        n = len(self.taps)
        cond = scratch.take("grad_cond_weight", self.cond_of_all.shape, self.skip)
        return StackWeights(
            cond_of_all=cond,
            cond=list(cond.chunk(n)),
            bias=[None] * n,
            taps=[torch.empty_like(taps) for taps in self.taps],
            to_residual=[None] * n,
            residual_bias=[None] * n,
            to_skip=[None] * n,
        )

    def to_parameters(self, parameters: list[Tensor]) -> list[Tensor]:
        """Turn these gradients of matrices into gradients of ``parameters``, as given to :meth:`of`, in their order."""
        convolutions = [_Convolution(*parameters[k : k + 3]) for k in range(0, len(parameters) - 3, 3)]
        front, cond, *inner, skip = convolutions
        n = len(self.taps)
        grad_front = self.front.view(len(self.front), front.v.shape[2], -1).transpose(0, 1)
        made = [front.taps_backward(grad_front, self.front_bias, 0)]
        made.append(cond.backward(self.cond_of_all, torch.cat(self.bias), n))
        for i in range(n):
            made.append(inner[2 * i].taps_backward(self.taps[i], self.bias[i], 1))
            parts = [(self.to_residual[i], self.residual_bias[i]), (self.to_skip[i], self.skip_sum_bias)]
            weights, biases = zip(*(part for part in parts if part[0] is not None), strict=True)
            made.append(inner[2 * i + 1].backward(torch.cat(weights), torch.cat(biases), 0))
        made.append(skip.backward(self.skip, self.skip_bias, 0))
        end, end_bias, scale = parameters[-3:]
        factor = torch.exp(SCALE_SLOPE * scale[0])  # (out_channels, 1)
        grad_end, grad_bias = self.end.to(end.dtype), self.end_bias.to(end.dtype)
        along = (grad_end * end[:, :, 0]).sum(dim=1) + grad_bias * end_bias
        grad_scale = SCALE_SLOPE * factor[:, 0] * along
        return [
            *(grad for grads in made for grad in grads),
            (grad_end * factor)[:, :, None],
            grad_bias * factor[:, 0],
            grad_scale[None, :, None],
        ]


@dataclass(frozen=True)
class _Convolution:
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

    def directions(self, name: str, gates: int, dtype: torch.dtype, scratch: Scratch) -> tuple[Tensor, Tensor]:
        """Return (out_channels, in_channels) and factors (out_channels,) that make it the normalised weight.

        For weights that are large beside what they are multiplied with: the factors go to the product.
        """
        v = self.v.flatten(1)
        out = v if v.dtype == dtype else scratch.take(f"weight_{name}", v.shape, v.new_empty(0, dtype=dtype)).copy_(v)
        return out, (self._norms(gates) / v.norm(dim=1, keepdim=True))[:, 0].to(dtype)

    def taps(self, name: str, gates: int, dtype: torch.dtype, scratch: Scratch) -> Tensor:
        """Return the normalised weight as a matrix per tap, (taps, out_channels, in_channels)."""
        return self.matrix(name, gates, dtype, scratch).view(self.v.shape).permute(2, 0, 1).contiguous()

    def backward(self, grad: Tensor, grad_bias: Tensor, gates: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of bias, g and v from those of :meth:`matrix` and of the bias used with it."""
        grad_v, grad_g = normalise_backward(grad.to(self.v.dtype), self.v.flatten(1), self._norms(gates))
        if gates:
            factor = self.factor(gates)
            grad_g, grad_bias = grad_g * factor, grad_bias * factor[:, 0]
        return grad_bias.to(self.bias.dtype), grad_g[:, :, None], grad_v.view(self.v.shape)

    def taps_backward(self, grad: Tensor, grad_bias: Tensor, gates: int) -> tuple[Tensor, Tensor, Tensor]:
        """As :meth:`backward`, from the gradient of :meth:`taps`."""
        return self.backward(grad.permute(1, 2, 0).reshape(self.v.shape).flatten(1), grad_bias, gates)

    def _norms(self, gates: int) -> Tensor:
        return self.g[:, :, 0] * self.factor(gates) if gates else self.g[:, :, 0]
