"""Forward and backward pass of one flow step on rows; the backward pass rebuilds the step's input from its output.

The halves of x are two matrices (a, b), shape (rows, C / 2) each: the coupling changes b, given a, and the swap
after it only exchanges their names. Under autocast only the WaveNets run in the lower precision.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowavenet_plugin.flow.arithmetic import exact_product
from flowavenet_plugin.flow.mixing import inverse_mixing_matrix, mixing_backward, mixing_matrix
from flowavenet_plugin.kernels import gated_stack
from flowavenet_plugin.kernels.gated_stack import Activations
from flowavenet_plugin.kernels.rows import Rows
from flowavenet_plugin.kernels.scratch import Memory, Scratch
from flowavenet_plugin.kernels.stack_weights import StackShape, StackWeights

AFFINE, ADDITIVE, SPLIT = "affine", "additive", "split"
Halves = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Step:
    """One step of a chain.

    Attributes:
        kind: Coupling: "affine" or "additive"; or "split", which whitens b and neither normalises nor swaps.
        stack: Of its WaveNet.
        cond_half: The half of the conditioning that it reads; None: all.
        mixing: Channels are mixed between ActNorm and coupling.
    """

    kind: str
    stack: StackShape
    cond_half: int | None
    mixing: bool = False

    @property
    def n_parameters(self) -> int:
        """Tensors of the step: ActNorm's loc and scale, unless it is a split, the mixing's, then its WaveNet's."""
        return self.stack.n_parameters + (0 if self.kind == SPLIT else 2) + self.mixing

    def cond(self, rows: Tensor) -> Tensor:
        """Return what the step reads of conditioning (rows, D)."""
        return rows if self.cond_half is None else rows.chunk(2, dim=1)[self.cond_half]


@dataclass(frozen=True)
class Prediction:
    """What a step's WaveNet says: b is shifted by ``-shift`` and scaled by exp(-log_scale) (None: not scaled)."""

    shift: Tensor
    log_scale: Tensor | None
    activations: Activations | None

    def tensors(self) -> list[Tensor | None]:
        """List them; :meth:`of` puts them together again."""
        return [self.shift, self.log_scale, *self.activations.tensors()]

    @classmethod
    def of(cls, tensors: list[Tensor]) -> Prediction:
        """Undo :meth:`tensors`."""
        return cls(tensors[0], tensors[1], Activations.of(tensors[2:]))


class Work:
    """A batch at work: layout, masks, conditioning and buffers that all steps of a chain share."""

    def __init__(self, rows: Rows, cond: Tensor, mask: Tensor | None, memory: Memory) -> None:
        """Prepare.

        Args:
            rows: The layout.
            cond: Conditioning, shape (rows, D), of the type in which the WaveNets run.
            mask: 1 for samples of the utterance and 0 for padding, shape (B, C, T); None: all count.
            memory: For buffers and large gradients.
        """
        self.rows = rows
        self.cond = cond
        self.scratch = Scratch(memory)
        self.masks = None if mask is None else rows.pack(mask).chunk(2, dim=1)
        self.whole = None if mask is None else rows.pack(mask.amin(dim=1, keepdim=True)) > 0  # columns without padding

    def inside(self, half: Tensor, side: int) -> Tensor:
        """Set what isn't part of the utterance to zero, for the half that was a (side 0) or b (1) at first."""
        return self.rows.clear(half) if self.masks is None else half * self.masks[side]

    def mixed(self, x: Tensor, matrix: Tensor) -> Tensor:
        """Multiply rows (rows, C) of columns without padding by a matrix (C, C); others stay."""
        out = exact_product(x, matrix.t())
        return out if self.whole is None else torch.where(self.whole, out, x)

    def count(self, side: int, like: Tensor) -> Tensor:
        """Count the samples of each item and channel, shape (B, 1) or (B, C / 2)."""
        if self.masks is None:
            return like.new_full((self.rows.batch, 1), self.rows.length)
        return self.masks[side].reshape(self.rows.batch, self.rows.length + self.rows.gap, -1).sum(dim=1)

    def weights(self, step: Step, parameters: list[Tensor]) -> StackWeights:
        """Compute the matrices of a step's WaveNet."""
        own = parameters[-step.stack.n_parameters :]
        return StackWeights.of(step.stack, own, self.cond.dtype, self.scratch, len(self.cond))

    def predict(self, step: Step, a: Tensor, weights: StackWeights, scratch: Scratch | None) -> Prediction:
        """Run a step's WaveNet; the activations lie in ``scratch``, or aren't kept (None)."""
        x, keep = a.to(self.cond.dtype), scratch is not None
        room = scratch if keep else self.scratch
        out, activations = gated_stack.forward(x, step.cond(self.cond), weights, self.rows, room, keep)
        out = out.to(a.dtype)
        if step.kind == ADDITIVE:
            return Prediction(-out, None, activations)
        first, second = out.chunk(2, dim=1)
        return Prediction(*((first, second) if step.kind == SPLIT else (second, first)), activations)


def step_forward(
    work: Work, step: Step, parameters: list[Tensor], halves: Halves, side: int, scratch: Scratch | None
) -> tuple[Halves, Tensor, Prediction]:
    """Run a step.

    Args:
        work: The batch.
        step: The step.
        parameters: Its own.
        halves: a and b.
        side: Which half of the chain's input a is.
        scratch: Holds the activations afterwards; None: they aren't kept.

    Returns:
        a and b after the step; log|det| per item in nats, shape (B,); the WaveNet's prediction.
    """
    a, b = halves
    logdet = a.new_zeros(work.rows.batch)
    if step.kind != SPLIT:
        locs, scales = (parameter[0, :, 0].chunk(2) for parameter in parameters[:2])
        a = work.inside(scales[0] * (a + locs[0]), side)
        b = work.inside(scales[1] * (b + locs[1]), 1 - side)
        for scale, own in zip(scales, (side, 1 - side), strict=True):
            logdet = logdet + (work.count(own, a) * scale.abs().log()).sum(dim=1)
    if step.mixing:
        a, b = work.mixed(torch.cat([a, b], dim=1), mixing_matrix(parameters[2])).chunk(2, dim=1)
    said = work.predict(step, a, work.weights(step, parameters), scratch)
    b = b - said.shift
    if said.log_scale is not None:
        b = b * torch.exp(-said.log_scale)
        logdet = logdet - work.rows.sum_items(work.inside(said.log_scale.clone(), 1 - side))
    b = work.inside(b, 1 - side)
    return ((a, b) if step.kind == SPLIT else (b, a)), logdet, said


def step_backward(
    work: Work,
    step: Step,
    parameters: list[Tensor],
    halves: Halves,
    grads: Halves,
    grad_logdet: Tensor,
    side: int,
    said: Prediction | None,
    grad_cond: Tensor | None,
) -> tuple[Halves, Halves, list[Tensor]]:
    """Run a step backwards.

    Args:
        work: The batch.
        step: The step.
        parameters: Its own.
        halves: a and b after the step.
        grads: Their gradients, zero outside of utterances.
        grad_logdet: Gradient of the log-determinants, shape (B,).
        side: Which half of the chain's input a was before the step.
        said: The forward pass's prediction, if kept.
        grad_cond: The gradient of the conditioning (rows, D) is added to it; None: not needed.

    Returns:
        a and b before the step, their gradients, and the gradients of the parameters.
    """
    (a, b), (grad_a, grad_b) = (halves, grads) if step.kind == SPLIT else (halves[::-1], grads[::-1])
    weights = work.weights(step, parameters)
    said = work.predict(step, a, weights, work.scratch) if said is None else said
    grad_log_scale = None
    if said.log_scale is not None:
        each = grad_logdet[:, None].expand(-1, work.rows.length + work.rows.gap).reshape(-1, 1)
        grad_log_scale = work.inside(-grad_b * b - each, 1 - side)
        scale = torch.exp(-said.log_scale)
        grad_b, b = work.inside(grad_b * scale, 1 - side), b / scale
    b = work.inside(b + said.shift, 1 - side)
    parts = {
        ADDITIVE: [grad_b],  # its output is -shift
        AFFINE: [grad_log_scale, -grad_b],
        SPLIT: [-grad_b, grad_log_scale],
    }[step.kind]
    grad_input, stack_grads = gated_stack.backward(
        torch.cat(parts, dim=1).to(work.cond.dtype),
        step.cond(work.cond),
        None if grad_cond is None else step.cond(grad_cond),
        said.activations,
        weights,
        work.rows,
        work.scratch,
    )
    grad_a = work.inside(grad_a + grad_input, side)
    made = stack_grads.to_parameters(parameters[-step.stack.n_parameters :], work.scratch.memory)
    if step.kind == SPLIT:
        return (a, b), (grad_a, grad_b), made
    if step.mixing:
        (a, b), (grad_a, grad_b), grad_factors = _mixing_backward(work, parameters[2], (a, b), (grad_a, grad_b))
        made = [grad_factors, *made]
    halves, grads, own = _actnorm_backward(work, parameters[:2], (a, b), (grad_a, grad_b), grad_logdet, side)
    return halves, grads, own + made


def _mixing_backward(work: Work, factors: Tensor, halves: Halves, grads: Halves) -> tuple[Halves, Halves, Tensor]:
    z, grad = torch.cat(halves, dim=1), torch.cat(grads, dim=1)
    x = work.mixed(z, inverse_mixing_matrix(factors))
    grad_matrix = exact_product((grad if work.whole is None else grad * work.whole).t(), x)
    grad_x = work.mixed(grad, mixing_matrix(factors).t())
    return tuple(x.chunk(2, dim=1)), tuple(grad_x.chunk(2, dim=1)), mixing_backward(grad_matrix, factors)


def _actnorm_backward(
    work: Work, parameters: list[Tensor], halves: Halves, grads: Halves, grad_logdet: Tensor, side: int
) -> tuple[Halves, Halves, list[Tensor]]:
    before, grads_before, grad_loc, grad_scale = [], [], [], []
    locs, scales = (parameter[0, :, 0].chunk(2) for parameter in parameters)
    for k, (y, grad, loc, scale) in enumerate(zip(halves, grads, locs, scales, strict=True)):
        own = side if k == 0 else 1 - side
        shifted = y / scale
        counted = (grad_logdet[:, None] * work.count(own, y)).sum(dim=0)  # (1,) or (C / 2,)
        grad_scale.append((grad * shifted).sum(dim=0) + counted / scale)
        grads_before.append(grad * scale)
        grad_loc.append(grads_before[k].sum(dim=0))
        before.append(work.inside(shifted - loc, own))
    own_grads = [torch.cat(parts)[None, :, None] for parts in (grad_loc, grad_scale)]
    return tuple(before), tuple(grads_before), own_grads
