"""The parameters of a gated stack as the matrices that its products read, and gradients back to the parameters."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from flowavenet_plugin.kernels import winograd
from flowavenet_plugin.kernels.compiled import takes_floats
from flowavenet_plugin.kernels.convolution import DirectConvolution
from flowavenet_plugin.kernels.products import Matrix
from flowavenet_plugin.kernels.scratch import Memory, Scratch
from flowavenet_plugin.kernels.stack_shape import FRONT_KERNEL_SIZE, StackShape
from flowavenet_plugin.kernels.weight_norm import normalise, normalise_backward
from flowavenet_plugin.kernels.winograd import WinogradConvolution

#: From so many rows on it pays to put matrices in order, and fewer products for the sums around them, on a CPU.
MANY_ROWS = 400
#: Rows of a piece on a CPU, at most: the processor's cache holds its hidden states.
PIECE = 2048
#: The end convolution's scale works through an exponential of this slope.
SCALE_SLOPE = 3.0


@dataclass
class StackWeights:
    """Matrices of a stack; of filters and gates the filters are doubled. Also holds gradients of the same."""

    dilated: list[DirectConvolution] = field(default_factory=list)  # per layer, width to 2 * width
    front: Tensor | None = None  # (width, taps * in_channels)
    front_bias: Tensor | None = None
    cond_of_all: Tensor | None = None  # (layers * 2 * width, cond_channels)
    cond: list[Tensor] = field(default_factory=list)  # its parts: per layer (2 * width, cond_channels)
    cond_scale: list[Tensor | None] = field(default_factory=list)  # per layer (2 * width,): factor of its product
    bias: list[Tensor] = field(default_factory=list)  # per layer (2 * width,): conditioning and convolution
    taps: list[Tensor] = field(default_factory=list)  # gradients only: per layer, of the convolution's weight
    to_residual: list[Tensor | None] = field(default_factory=list)  # per layer (width, width); none in the last
    residual_bias: list[Tensor | None] = field(default_factory=list)
    to_skip: list[Tensor] = field(default_factory=list)  # per layer (width, width)
    skip_sum_bias: Tensor | None = None  # (width,): of all layers
    skip: Tensor | None = None  # (width, width)
    skip_bias: Tensor | None = None
    end: Tensor | None = None  # (out_channels, width), scaled
    end_bias: Tensor | None = None
    front_offsets: list[int] = field(default_factory=list)
    lefts: list[int] = field(default_factory=list)  # per layer: rows of zeros before the convolution's input
    scratch: Scratch | None = None  # keeps what times() puts in order
    many_rows: bool = False  # there are so many that this pays
    _times: dict[str, Matrix] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Channels of the hidden states."""
        return self.skip.shape[0]

    @property
    def tile(self) -> int:
        """Rows are computed in multiples of it."""
        return max(convolution.tile for convolution in self.dilated)

    def times(self, name: str, layer: int | None = None, back: bool = False) -> Matrix:
        """Return what multiplies rows by the transpose of a matrix, or, on the way ``back``, by the matrix itself."""
        key = f"{name}{'' if layer is None else layer}{'_back' if back else ''}"
        if key not in self._times:
            weight = getattr(self, name) if layer is None else getattr(self, name)[layer]
            in_order = Matrix(weight if back else weight.t(), self.scratch, f"panels_{key}", self.many_rows)
            self._times[key] = in_order
        return self._times[key]

    @property
    def piece(self) -> int:
        """Rows that are computed at once on a CPU."""
        return PIECE // self.tile * self.tile

    @classmethod
    def of(
        cls, shape: StackShape, parameters: list[Tensor], dtype: torch.dtype, scratch: Scratch, rows: int
    ) -> StackWeights:
        """Compute the matrices.

        Args:
            shape: Of the stack.
            parameters: Bias, norms and directions of the convolutions in the order front, conditioning, (dilated, out)
                per layer, skip; then weight, bias and scale of the end. As in the state dict, without gradients.
            dtype: Of the matrices.
            scratch: Holds the matrices.
            rows: How many rows they are meant for: decides between forms that give the same.
        """
        n = shape.n_layer
        convolutions = [_Convolution(*parameters[k : k + 3]) for k in range(0, len(parameters) - 3, 3)]
        front, cond, *inner, skip = convolutions
        dilated, outs = inner[0::2], inner[1::2]
        end, end_bias, scale = parameters[-3:]
        width = skip.v.shape[0]
        cond_bias = cond.bias.view(n, -1) * cond.factor(n)[: 2 * width, 0]
        all_cond, cond_scale = cond.for_rows("cond", n, dtype, scratch, rows)
        made = cls(
            front=front.taps("front", 0, dtype, scratch).transpose(0, 1).flatten(1),
            front_bias=front.bias.to(dtype),
            cond_of_all=all_cond,
            cond=list(all_cond.chunk(n)),
            cond_scale=[None] * n if cond_scale is None else list(cond_scale.chunk(n)),
            dilated=[conv.dilated(i, dtype, scratch, rows) for i, conv in enumerate(dilated)],
            skip=skip.matrix("skip", 0, dtype, scratch),
            skip_bias=skip.bias.to(dtype),
            end=(end[:, :, 0] * torch.exp(SCALE_SLOPE * scale[0])).to(dtype),
            end_bias=(end_bias * torch.exp(SCALE_SLOPE * scale[0, :, 0])).to(dtype),
            front_offsets=[k - shape.left(FRONT_KERNEL_SIZE) for k in range(FRONT_KERNEL_SIZE)],
            lefts=[shape.left(shape.kernel_size, 2**i) for i in range(n)],
            scratch=scratch,
            many_rows=rows >= MANY_ROWS,
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
        """Return room for the gradients: matrices uninitialised, vectors (but those of front and end) zero."""
        n, matrix, vector = len(self.dilated), self.skip, torch.zeros_like(self.skip_bias)
        # This one becomes the parameter's gradient, so it isn't a buffer.
        cond = scratch.memory.empty(self.cond_of_all.shape, matrix)
        residual = [None if weight is None else torch.empty_like(weight) for weight in self.to_residual]
        taps = [scratch.take(f"grad_dilated{i}", conv.weight.shape, matrix) for i, conv in enumerate(self.dilated)]
        return StackWeights(
            dilated=self.dilated,
            cond_of_all=cond,
            cond=list(cond.chunk(n)),
            bias=[torch.zeros_like(bias) for bias in self.bias],
            taps=taps,
            to_residual=residual,
            residual_bias=[None if weight is None else vector.clone() for weight in residual],
            to_skip=[torch.empty_like(matrix) for _ in range(n)],
            skip_sum_bias=vector.clone(),
            skip=torch.empty_like(matrix),
            skip_bias=vector,
        )

    def to_parameters(self, parameters: list[Tensor], memory: Memory) -> list[Tensor]:
        """Turn these gradients of matrices into gradients of ``parameters``, as given to :meth:`of`, in their order.

        The former are lost; the latter lie in ``memory``, where they are large.
        """
        convolutions = [_Convolution(*parameters[k : k + 3]) for k in range(0, len(parameters) - 3, 3)]
        front, cond, *inner, skip = convolutions
        n = len(self.taps)
        grad_front = self.front.view(len(self.front), front.v.shape[2], -1).transpose(0, 1)
        made = [front.taps_backward(grad_front, self.front_bias, 0, memory)]
        made.append(cond.backward(self.cond_of_all, torch.cat(self.bias), n))
        for i in range(n):
            made.append(inner[2 * i].dilated_backward(self.dilated[i], self.taps[i], self.bias[i], memory))
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
        if not (fewer and self.v.device.type == "cpu" and dtype in (torch.float32, torch.float64)):
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
