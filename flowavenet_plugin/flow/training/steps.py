"""Both directions of one step on rows, and the backward pass of each, which starts from the step's result.

Each backward pass undoes its step first, so that no step's input need be kept, nor, where the WaveNet runs once more,
its activations. Under autocast only the WaveNets run in the lower precision.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flowavenet_plugin.flow.arithmetic import exact_product
from flowavenet_plugin.flow.mixing import inverse_mixing_matrix, mixing_backward, mixing_matrix
from flowavenet_plugin.flow.plan import SPLIT, Step
from flowavenet_plugin.flow.training.batch import Batch, Halves, Prediction
from flowavenet_plugin.kernels.scratch import Scratch

#: A step's input, its gradients, and those of the parameters.
Undone = tuple[Halves, Halves, list[Tensor]]


@dataclass(frozen=True)
class StepPass:
    """A step at work on a batch, with its own parameters; ``inverse``: it is undone."""

    batch: Batch
    step: Step
    parameters: list[Tensor]
    inverse: bool

    def run(self, halves: Halves, scratch: Scratch | None) -> tuple[Halves, Tensor | None, Prediction]:
        """Run it.

        Args:
            halves: Its input.
            scratch: Holds the activations afterwards; None: they aren't kept.

        Returns:
            Its result; log|det| per item in nats, shape (B,), None of the inverse; the WaveNet's prediction.
        """
        batch, step, logdet = self.batch, self.step, None
        if not self.inverse:
            halves, logdet = self._normalise(halves)
        said = batch.predict(step, halves[step.reads], batch.weights(step, self.parameters), scratch)
        halves = self._changed(halves, _coupled(said, halves[step.changes], self.inverse))
        if self.inverse:
            return self._denormalise(halves), None, said
        if said.log_scale is not None:
            logdet = logdet - batch.rows.sum_items(batch.inside(said.log_scale.clone(), step.changes))
        return halves, logdet, said

    def backward(self, halves: Halves, grads: Halves, grad_logdet: Tensor | None, said: Prediction | None) -> Undone:
        """Run :meth:`run` backwards.

        Args:
            halves: Its result.
            grads: The result's gradients, zero outside of utterances.
            grad_logdet: Gradient of the log-determinants, shape (B,); None of the inverse.
            said: The prediction, if kept.
        """
        norm, mixing, normed = [], [], self.step.kind != SPLIT
        if normed and self.inverse:
            halves, grads, norm = self._norm_backward(halves, grads, None)
            halves, grads, mixing = self._mixing_backward(halves, grads)
        halves, grads, made = self._coupling_backward(halves, grads, grad_logdet, said)
        if normed and not self.inverse:
            halves, grads, mixing = self._mixing_backward(halves, grads)
            halves, grads, norm = self._norm_backward(halves, grads, grad_logdet)
        return halves, grads, [*norm, *mixing, *made]

    def _coupling_backward(
        self, halves: Halves, grads: Halves, grad_logdet: Tensor | None, said: Prediction | None
    ) -> Undone:
        """Do what :meth:`backward` does, for the WaveNet and what it changes."""
        batch, step, inverse = self.batch, self.step, self.inverse
        weights = batch.weights(step, self.parameters)
        said = batch.predict(step, halves[step.reads], weights, batch.scratch) if said is None else said
        z, grad_z = halves[step.changes], grads[step.changes]
        grad, grad_log_scale = grad_z, None
        if said.log_scale is not None:
            if inverse:
                grad_log_scale = grad_z * batch.inside(z - said.shift, step.changes)
            else:
                grad_log_scale = batch.inside(-grad_z * z - batch.each_row(grad_logdet), step.changes)
            grad = batch.inside(grad_z * torch.exp(said.log_scale if inverse else -said.log_scale), step.changes)
        halves = self._changed(halves, _coupled(said, z, not inverse))
        grads_said = grad_z if inverse else -grad, grad_log_scale
        grad_read, stack = batch.predict_backward(step, said, grads_said, weights)
        made = stack.to_parameters(weights, self.parameters[-step.stack.n_parameters :], batch.scratch.memory)
        grad_read = batch.inside(grads[step.reads] + grad_read, step.reads)
        return halves, _pair({step.reads: grad_read, step.changes: grad}), made

    def _normalise(self, halves: Halves) -> tuple[Halves, Tensor]:
        """Apply ActNorm and mixing, which a split hasn't got; return log|det| as well."""
        batch, made = self.batch, {}
        logdet = halves[0].new_zeros(batch.rows.batch)
        if self.step.kind == SPLIT:
            return halves, logdet
        for half, loc, scale in self._norms():
            made[half] = batch.inside(scale * (halves[half] + loc), half)
            logdet = logdet + (batch.count(half, loc) * scale.abs().log()).sum(dim=1)
        return self._mixed(_pair(made), mixing_matrix), logdet

    def _denormalise(self, halves: Halves) -> Halves:
        """Undo :meth:`_normalise`."""
        if self.step.kind == SPLIT:
            return halves
        halves = self._mixed(halves, inverse_mixing_matrix)
        return _pair({half: self.batch.inside(halves[half] / scale - loc, half) for half, loc, scale in self._norms()})

    def _mixed(self, halves: Halves, matrix: Callable[[Tensor], Tensor]) -> Halves:
        """Multiply the channels by the matrix of the step's factors, if it has some."""
        if not self.step.mixing:
            return halves
        return self._back(self.batch.mixed(self._ordered(halves), matrix(self.parameters[2])))

    def _norm_backward(self, halves: Halves, grads: Halves, grad_logdet: Tensor | None) -> Undone:
        """Do what :meth:`backward` does, for ActNorm."""
        batch, befores, grad_befores, own = self.batch, {}, {}, []
        for half, loc, scale in self._norms():
            z, grad_z = halves[half], grads[half]
            if self.inverse:
                shifted, grad = batch.inside(z + loc, half), grad_z / scale
                own.append((-grad_z.sum(dim=0), -(grad * shifted).sum(dim=0)))
                befores[half] = shifted * scale
            else:
                shifted, grad = z / scale, grad_z * scale
                counted = (grad_logdet[:, None] * batch.count(half, grad)).sum(dim=0)  # (1,) or (C / 2,)
                own.append((grad.sum(dim=0), (grad_z * shifted).sum(dim=0) + counted / scale))
                befores[half] = batch.inside(shifted - loc, half)
            grad_befores[half] = grad
        made = [torch.cat(parts)[None, :, None] for parts in zip(*own, strict=True)]
        return _pair(befores), _pair(grad_befores), made

    def _mixing_backward(self, halves: Halves, grads: Halves) -> Undone:
        """Do what :meth:`backward` does, for mixed channels."""
        if not self.step.mixing:
            return halves, grads, []
        batch, factors, z, grad_z = self.batch, self.parameters[2], self._ordered(halves), self._ordered(grads)
        matrix, back = mixing_matrix(factors), inverse_mixing_matrix(factors)
        if self.inverse:
            x, grad = batch.mixed(z, matrix), batch.mixed(grad_z, back.t())
            left, right = -grad, z  # of the inverse of a matrix
        else:
            x, grad = batch.mixed(z, back), batch.mixed(grad_z, matrix.t())
            left, right = grad_z, x
        grad_matrix = exact_product((left if batch.whole is None else left * batch.whole).t(), right)
        return self._back(x), self._back(grad), [mixing_backward(grad_matrix, factors)]

    def _changed(self, halves: Halves, new: Tensor) -> Halves:
        """Put the new values of the half that changes into its place."""
        reads, changes = self.step.reads, self.step.changes
        return _pair({reads: halves[reads], changes: self.batch.inside(new, changes)})

    def _norms(self) -> list[tuple[int, Tensor, Tensor]]:
        """List half, loc and scale of ActNorm, whose channels begin with the half that is read."""
        locs, scales = (parameter[0, :, 0].chunk(2) for parameter in self.parameters[:2])
        return list(zip((self.step.reads, self.step.changes), locs, scales, strict=True))

    def _ordered(self, halves: Halves) -> Tensor:
        """Put the half that is read before the other, shape (rows, C)."""
        return torch.cat([halves[self.step.reads], halves[self.step.changes]], dim=1)

    def _back(self, ordered: Tensor) -> Halves:
        """Undo :meth:`_ordered`."""
        first, second = ordered.chunk(2, dim=1)
        return (first, second) if self.step.reads == 0 else (second, first)


def _coupled(said: Prediction, x: Tensor, inverse: bool) -> Tensor:
    if inverse:
        return (x if said.log_scale is None else x * torch.exp(said.log_scale)) + said.shift
    x = x - said.shift
    return x if said.log_scale is None else x * torch.exp(-said.log_scale)


def _pair(by_half: dict[int, Tensor]) -> Halves:
    return by_half[0], by_half[1]
