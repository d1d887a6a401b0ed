"""The weights of a gated stack as its passes read them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from flowavenet_plugin.kernels.backends import RESIDUAL, Fused, Separate
from flowavenet_plugin.kernels.convolution import DirectConvolution
from flowavenet_plugin.kernels.products import Matrix, thin_product
from flowavenet_plugin.kernels.scratch import Scratch
from flowavenet_plugin.kernels.stack_parameters import MANY_ROWS, PIECE, SCALE_SLOPE, split_parameters
from flowavenet_plugin.kernels.stack_shape import StackShape


@dataclass
class StackWeights:
    """What the passes of a stack read; of filters and gates the filters are doubled.

    Attributes:
        shape: Of the stack.
        matrices: By name and layer, (out, in): "cond" (to 2 * width; "cond1": of a second part), "to_residual" (none in
            the last), "to_skip", and "skip" with layer 0. :meth:`times` multiplies by them.
        front: Shape (taps * in_channels, width), of the input's precision.
        front_bias: Shape (width,), likewise.
        dilated: Convolutions of the layers, width to 2 * width.
        bias: Per layer, of conditioning and convolution, shape (2 * width,).
        residual_bias: Per layer but the last, times the residual sum's factor, shape (width,).
        skip_sum_bias: Of all layers, shape (width,).
        skip_bias: Shape (width,).
        end: Scaled, shape (out_channels, width), of the prediction's precision.
        end_bias: Shape (out_channels,), likewise.
        backend: Computes the layers.
        scratch: Keeps what :meth:`times` puts in order.
        piece: Rows computed at once on a CPU; None: all.
        many_rows: There are so many that it pays to put matrices in order.
        cond_scale: Per layer, factors of the conditioning's product, shape (2 * width,); None: none.
        cond_of_all: The conditioning's matrices in one, for training.
    """

    shape: StackShape
    matrices: dict[tuple[str, int], Tensor]
    front: Tensor
    front_bias: Tensor
    dilated: list[DirectConvolution]
    bias: list[Tensor]
    residual_bias: list[Tensor]
    skip_sum_bias: Tensor
    skip_bias: Tensor
    end: Tensor
    end_bias: Tensor
    backend: Separate | Fused = field(default_factory=Separate)
    scratch: Scratch | None = None
    piece: int | None = None
    many_rows: bool = True
    cond_scale: list[Tensor | None] = field(default_factory=list)
    cond_of_all: Tensor | None = None
    _times: dict[str, Matrix] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Channels of the hidden states."""
        return len(self.skip_bias)

    def pieces(self, size: int) -> list[slice]:
        """Cut rows into those that are computed at once: whole tiles of all convolutions, but for the last."""
        tile = max(convolution.tile for convolution in self.dilated)
        step = size if self.piece is None or self.front.device.type != "cpu" else self.piece // tile * tile
        return [slice(start, min(start + step, size)) for start in range(0, size, max(step, 1))]

    def times(self, name: str, layer: int = 0, back: bool = False) -> Matrix:
        """Return what multiplies rows by the transpose of a matrix, or, on the way ``back``, by the matrix itself."""
        key = f"{name}{layer}{'_back' if back else ''}"
        if key not in self._times:
            weight = self.matrices[name, layer]
            in_order = Matrix(weight if back else weight.t(), self.scratch, f"panels_{key}", self.many_rows)
            self._times[key] = in_order
        return self._times[key]

    def condition(self, layer: int, parts: list[Tensor], out: Tensor) -> None:
        """Write a layer's product with the conditioning, whose parts are (rows, channels) each."""
        if self.cond_scale and self.cond_scale[layer] is not None:
            torch.mul(thin_product(parts[0], self.matrices["cond", layer]), self.cond_scale[layer], out=out)
            return
        for k, part in enumerate(parts):
            self.times(f"cond{k}" if k else "cond", layer).multiply(part, out, other=out if k else None)

    def put(self, name: str, layer: int, weight: Tensor) -> None:
        """Take a matrix (out, in) for passes without a way back: only what :meth:`times` returns is kept of it."""
        in_order = self._times[f"{name}{layer}"] = Matrix(weight.t())
        if in_order.weight is not None:
            in_order.weight = in_order.weight.contiguous()

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
        front, cond, dilated, outs, skip, (end, end_bias, scale) = split_parameters(parameters)
        width, end_scale = skip.v.shape[0], torch.exp(SCALE_SLOPE * scale[0])  # (out_channels, 1)
        all_cond, cond_scale = cond.for_rows(dtype, scratch, rows)
        matrices = {("skip", 0): skip.matrix(dtype, scratch)}
        matrices |= {("cond", i): part for i, part in enumerate(all_cond.chunk(n))}
        for i, conv in enumerate(outs):
            matrix = conv.matrix(dtype, scratch)
            matrices["to_skip", i] = matrix[-width:]
            if i + 1 < n:
                matrices["to_residual", i] = matrix[:-width]
        biases = zip((cond.bias * cond.factor[:, 0]).chunk(n), dilated, strict=True)
        return cls(
            shape,
            matrices,
            front=front.taps(dtype, scratch).transpose(1, 2).flatten(0, 1).contiguous(),
            front_bias=front.bias.to(dtype),
            dilated=[conv.dilated(2**i, dtype, scratch, rows) for i, conv in enumerate(dilated)],
            bias=[(conv.bias * conv.factor[:, 0] + own).to(dtype) for own, conv in biases],
            residual_bias=[(RESIDUAL * conv.bias[:-width]).to(dtype) for conv in outs[:-1]],
            skip_sum_bias=torch.stack([conv.bias[-width:] for conv in outs]).sum(dim=0).to(dtype),
            skip_bias=skip.bias.to(dtype),
            end=(end[:, :, 0] * end_scale).to(dtype),
            end_bias=(end_bias * end_scale[:, 0]).to(dtype),
            scratch=scratch,
            piece=PIECE,
            many_rows=rows >= MANY_ROWS,
            cond_scale=[None] * n if cond_scale is None else list(cond_scale.chunk(n)),
            cond_of_all=all_cond,
        )
