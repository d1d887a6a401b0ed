"""Both directions of one step on rows, and the backward pass of each, which starts from the step's result.

Each backward pass undoes its step first, so that no step's input need be kept, nor, where the WaveNet runs once more,
its activations. Under autocast only the WaveNets run in the lower precision.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from flowavenet_plugin.flow.arithmetic import exact_product
from flowavenet_plugin.flow.mixing import inverse_mixing_matrix, mixing_backward, mixing_matrix
from flowavenet_plugin.flow.plan import SPLIT, Step
from flowavenet_plugin.flow.training.batch import Batch, Halves, Prediction
from flowavenet_plugin.kernels.scratch import Scratch


def run_step(
    batch: Batch, step: Step, parameters: list[Tensor], halves: Halves, scratch: Scratch | None, inverse: bool
) -> tuple[Halves, Tensor | None, Prediction]:
    """Run a step.

    Args:
        batch: The batch.
        step: The step.
        parameters: Its own.
        halves: Its input.
        scratch: Holds the activations afterwards; None: they aren't kept.
        inverse: Undo it instead.

    Returns:
        Its result; log|det| per item in nats, shape (B,), None of the inverse; the WaveNet's prediction.
    """
    logdet = None
    if not inverse:
        halves, logdet = _normalise(batch, step, parameters, halves)
    said = batch.predict(step, halves[step.reads], batch.weights(step, parameters), scratch)
    halves = _changed(batch, step, halves, _coupled(said, halves[step.changes], inverse))
    if inverse:
        return _denormalise(batch, step, parameters, halves), None, said
    if said.log_scale is not None:
        logdet = logdet - batch.rows.sum_items(batch.inside(said.log_scale.clone(), step.changes))
    return halves, logdet, said


def step_backward(
    batch: Batch,
    step: Step,
    parameters: list[Tensor],
    halves: Halves,
    grads: Halves,
    grad_logdet: Tensor | None,
    said: Prediction | None,
    grad_cond: Tensor | None,
) -> tuple[Halves, Halves, list[Tensor]]:
    """Run :func:`run_step` backwards.

    Args:
        batch: The batch.
        step: The step.
        parameters: Its own.
        halves: Its result.
        grads: The result's gradients, zero outside of utterances.
        grad_logdet: Gradient of the log-determinants, shape (B,); None: it was the inverse that was run.
        said: The prediction, if kept.
        grad_cond: The gradient of the conditioning (rows, D) is added to it; None: not needed.

    Returns:
        The step's input, its gradients, and those of the parameters.
    """
    norm: list[Tensor] = []
    if grad_logdet is None and step.kind != SPLIT:
        halves, grads, norm = _norm_backward(batch, step, parameters, halves, grads, None)
        halves, grads, mixing = _mixing_backward(batch, step, parameters, halves, grads, True)
        norm += mixing
    halves, grads, made = _coupling_backward(batch, step, parameters, halves, grads, grad_logdet, said, grad_cond)
    if grad_logdet is not None and step.kind != SPLIT:
        halves, grads, mixing = _mixing_backward(batch, step, parameters, halves, grads, False)
        halves, grads, norm = _norm_backward(batch, step, parameters, halves, grads, grad_logdet)
        norm += mixing
    return halves, grads, [*norm, *made]


def _coupling_backward(
    batch: Batch,
    step: Step,
    parameters: list[Tensor],
    halves: Halves,
    grads: Halves,
    grad_logdet: Tensor | None,
    said: Prediction | None,
    grad_cond: Tensor | None,
) -> tuple[Halves, Halves, list[Tensor]]:
    """Do what :func:`step_backward` does, for the WaveNet and what it changes."""
    weights, inverse = batch.weights(step, parameters), grad_logdet is None
    said = batch.predict(step, halves[step.reads], weights, batch.scratch) if said is None else said
    z, grad_z = halves[step.changes], grads[step.changes]
    grad, grad_log_scale = grad_z, None
    if said.log_scale is not None:
        if inverse:
            grad_log_scale = grad_z * batch.inside(z - said.shift, step.changes)
        else:
            grad_log_scale = batch.inside(-grad_z * z - batch.each_row(grad_logdet), step.changes)
        grad = batch.inside(grad_z * torch.exp(said.log_scale if inverse else -said.log_scale), step.changes)
    halves = _changed(batch, step, halves, _coupled(said, z, not inverse))
    grads_said = grad_z if inverse else -grad, grad_log_scale
    grad_read, stack = batch.predict_backward(step, said, grads_said, weights, grad_cond)
    made = stack.to_parameters(weights, parameters[-step.stack.n_parameters :], batch.scratch.memory)
    grad_read = batch.inside(grads[step.reads] + grad_read, step.reads)
    return halves, _pair({step.reads: grad_read, step.changes: grad}), made


def _normalise(batch: Batch, step: Step, parameters: list[Tensor], halves: Halves) -> tuple[Halves, Tensor]:
    """Apply ActNorm and mixing, which a split hasn't got; return log|det| as well."""
    logdet, made = halves[0].new_zeros(batch.rows.batch), {}
    if step.kind == SPLIT:
        return halves, logdet
    for half, loc, scale in _norms(step, parameters):
        made[half] = batch.inside(scale * (halves[half] + loc), half)
        logdet = logdet + (batch.count(half, loc) * scale.abs().log()).sum(dim=1)
    return _mixed(batch, step, _pair(made), parameters, mixing_matrix), logdet


def _denormalise(batch: Batch, step: Step, parameters: list[Tensor], halves: Halves) -> Halves:
    """Undo :func:`_normalise`."""
    if step.kind == SPLIT:
        return halves
    halves = _mixed(batch, step, halves, parameters, inverse_mixing_matrix)
    return _pair(
        {half: batch.inside(halves[half] / scale - loc, half) for half, loc, scale in _norms(step, parameters)}
    )


def _mixed(
    batch: Batch, step: Step, halves: Halves, parameters: list[Tensor], matrix: Callable[[Tensor], Tensor]
) -> Halves:
    """Multiply the channels by the matrix of the step's factors, if it has some."""
    return _back(step, batch.mixed(_ordered(step, halves), matrix(parameters[2]))) if step.mixing else halves


def _norm_backward(
    batch: Batch, step: Step, parameters: list[Tensor], halves: Halves, grads: Halves, grad_logdet: Tensor | None
) -> tuple[Halves, Halves, list[Tensor]]:
    """Do what :func:`step_backward` does, for ActNorm."""
    befores, grad_befores, own = {}, {}, []
    for half, loc, scale in _norms(step, parameters):
        z, grad_z = halves[half], grads[half]
        if grad_logdet is None:
            shifted, grad = batch.inside(z + loc, half), grad_z / scale
            own.append((-grad_z.sum(dim=0), -(grad * shifted).sum(dim=0)))
            befores[half] = shifted * scale
        else:
            shifted, grad = z / scale, grad_z * scale
            counted = (grad_logdet[:, None] * batch.count(half, grad)).sum(dim=0)  # (1,) or (C / 2,)
            own.append((grad.sum(dim=0), (grad_z * shifted).sum(dim=0) + counted / scale))
            befores[half] = batch.inside(shifted - loc, half)
        grad_befores[half] = grad
    return _pair(befores), _pair(grad_befores), [torch.cat(parts)[None, :, None] for parts in zip(*own, strict=True)]


def _mixing_backward(
    batch: Batch, step: Step, parameters: list[Tensor], halves: Halves, grads: Halves, inverse: bool
) -> tuple[Halves, Halves, list[Tensor]]:
    """Do what :func:`step_backward` does, for mixed channels."""
    if not step.mixing:
        return halves, grads, []
    factors, z, grad_z = parameters[2], _ordered(step, halves), _ordered(step, grads)
    matrix, back = mixing_matrix(factors), inverse_mixing_matrix(factors)
    if inverse:
        x, grad = batch.mixed(z, matrix), batch.mixed(grad_z, back.t())
        left, right = -grad, z  # of the inverse of a matrix
    else:
        x, grad = batch.mixed(z, back), batch.mixed(grad_z, matrix.t())
        left, right = grad_z, x
    grad_matrix = exact_product((left if batch.whole is None else left * batch.whole).t(), right)
    return _back(step, x), _back(step, grad), [mixing_backward(grad_matrix, factors)]


def _coupled(said: Prediction, x: Tensor, inverse: bool) -> Tensor:
    if inverse:
        return (x if said.log_scale is None else x * torch.exp(said.log_scale)) + said.shift
    x = x - said.shift
    return x if said.log_scale is None else x * torch.exp(-said.log_scale)


def _changed(batch: Batch, step: Step, halves: Halves, new: Tensor) -> Halves:
    """Put the new values of the half that changes into its place."""
    return _pair({step.reads: halves[step.reads], step.changes: batch.inside(new, step.changes)})


def _norms(step: Step, parameters: list[Tensor]) -> list[tuple[int, Tensor, Tensor]]:
    """List half, loc and scale of ActNorm, whose channels begin with the half that is read."""
    locs, scales = (parameter[0, :, 0].chunk(2) for parameter in parameters[:2])
    return list(zip((step.reads, step.changes), locs, scales, strict=True))


def _pair(by_half: dict[int, Tensor]) -> Halves:
    return by_half[0], by_half[1]


def _ordered(step: Step, halves: Halves) -> Tensor:
    """Put the half that is read before the other, shape (rows, C)."""
    return torch.cat([halves[step.reads], halves[step.changes]], dim=1)


def _back(step: Step, ordered: Tensor) -> Halves:
    """Undo :func:`_ordered`."""
    return _pair(dict(zip((step.reads, step.changes), ordered.chunk(2, dim=1), strict=True)))
