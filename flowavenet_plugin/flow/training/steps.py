"""Both directions of one step on rows, and the backward pass of each, which starts from the step's result.

Each backward pass undoes its step first, so that no step's input need be kept, nor, where the WaveNet runs once more,
its activations. Under autocast only the WaveNets run in the lower precision.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flowavenet_plugin.flow.arithmetic import exact_product
from flowavenet_plugin.flow.mixing import inverse_mixing_matrix, mixing_backward, mixing_matrix
from flowavenet_plugin.flow.plan import SPLIT, Step
from flowavenet_plugin.flow.training.batch import Batch, Halves, Prediction
from flowavenet_plugin.kernels.scratch import Scratch


def step_forward(
    batch: Batch, step: Step, parameters: list[Tensor], halves: Halves, scratch: Scratch | None
) -> tuple[Halves, Tensor, Prediction]:
    """Run a step.

    Args:
        batch: The batch.
        step: The step.
        parameters: Its own.
        halves: Its input.
        scratch: Holds the activations afterwards; None: they aren't kept.

    Returns:
        Its result; log|det| per item in nats, shape (B,); the WaveNet's prediction.
    """
    logdet = halves[0].new_zeros(batch.rows.batch)
    if step.kind != SPLIT:
        halves, logdet = _normalise(batch, step, parameters, halves)
    said = batch.predict(step, halves[step.reads], batch.weights(step, parameters), scratch)
    if said.log_scale is not None:
        logdet = logdet - batch.rows.sum_items(batch.inside(said.log_scale.clone(), step.changes))
    return _changed(batch, step, halves, _coupled(said, halves[step.changes])), logdet, said


def step_inverse(
    batch: Batch, step: Step, parameters: list[Tensor], halves: Halves, scratch: Scratch | None
) -> tuple[Halves, Prediction]:
    """Undo a step; arguments and return values as of :func:`step_forward`."""
    said = batch.predict(step, halves[step.reads], batch.weights(step, parameters), scratch)
    halves = _changed(batch, step, halves, _uncoupled(said, halves[step.changes]))
    return (halves if step.kind == SPLIT else _denormalise(batch, step, parameters, halves)), said


def forward_backward(
    batch: Batch,
    step: Step,
    parameters: list[Tensor],
    halves: Halves,
    grads: Halves,
    grad_logdet: Tensor,
    said: Prediction | None,
    grad_cond: Tensor | None,
) -> tuple[Halves, Halves, list[Tensor]]:
    """Run :func:`step_forward` backwards.

    Args:
        batch: The batch.
        step: The step.
        parameters: Its own.
        halves: Its result.
        grads: The result's gradients, zero outside of utterances.
        grad_logdet: Gradient of the log-determinants, shape (B,).
        said: The prediction, if kept.
        grad_cond: The gradient of the conditioning (rows, D) is added to it; None: not needed.

    Returns:
        The step's input, its gradients, and those of the parameters.
    """
    weights = batch.weights(step, parameters)
    said = batch.predict(step, halves[step.reads], weights, batch.scratch) if said is None else said
    z, grad = halves[step.changes], grads[step.changes]
    grad_log_scale = None
    if said.log_scale is not None:
        grad_log_scale = batch.inside(-grad * z - batch.each_row(grad_logdet), step.changes)
        grad = batch.inside(grad * torch.exp(-said.log_scale), step.changes)
    halves = _changed(batch, step, halves, _uncoupled(said, z))
    grad_read, stack = batch.predict_backward(step, said, (-grad, grad_log_scale), weights, grad_cond)
    grads = _with_read(batch, step, grads, grad_read, grad)
    made = stack.to_parameters(parameters[-step.stack.n_parameters :], batch.scratch.memory)
    if step.kind == SPLIT:
        return halves, grads, made
    if step.mixing:
        z, grad, factors = _ordered(step, halves), _ordered(step, grads), parameters[2]
        x = batch.mixed(z, inverse_mixing_matrix(factors))
        grad_matrix = exact_product((grad if batch.whole is None else grad * batch.whole).t(), x)
        made = [mixing_backward(grad_matrix, factors), *made]
        halves, grads = _back(step, x), _back(step, batch.mixed(grad, mixing_matrix(factors).t()))
    befores, grad_befores, own = {}, {}, []
    for half, loc, scale in _norms(step, parameters):
        shifted, grad = halves[half] / scale, grads[half] * scale
        counted = (grad_logdet[:, None] * batch.count(half, grad)).sum(dim=0)  # (1,) or (C / 2,)
        own.append((grad.sum(dim=0), (grads[half] * shifted).sum(dim=0) + counted / scale))
        befores[half], grad_befores[half] = batch.inside(shifted - loc, half), grad
    return _pair(befores), _pair(grad_befores), [*_as_norm(own), *made]


def inverse_backward(
    batch: Batch,
    step: Step,
    parameters: list[Tensor],
    halves: Halves,
    grads: Halves,
    said: Prediction | None,
    grad_cond: Tensor | None,
) -> tuple[Halves, Halves, list[Tensor]]:
    """Run :func:`step_inverse` backwards; arguments and return values as of :func:`forward_backward`."""
    norm_grads: list[Tensor] = []
    if step.kind != SPLIT:
        halves, grads, norm_grads = _denormalise_backward(batch, step, parameters, halves, grads)
    weights = batch.weights(step, parameters)
    said = batch.predict(step, halves[step.reads], weights, batch.scratch) if said is None else said
    x, grad = halves[step.changes], grads[step.changes]
    grads_said = grad, None if said.log_scale is None else grad * batch.inside(x - said.shift, step.changes)
    halves = _changed(batch, step, halves, _coupled(said, x))
    if said.log_scale is not None:
        grad = batch.inside(grad * torch.exp(said.log_scale), step.changes)
    grad_read, stack = batch.predict_backward(step, said, grads_said, weights, grad_cond)
    made = stack.to_parameters(parameters[-step.stack.n_parameters :], batch.scratch.memory)
    return halves, _with_read(batch, step, grads, grad_read, grad), [*norm_grads, *made]


def _normalise(batch: Batch, step: Step, parameters: list[Tensor], halves: Halves) -> tuple[Halves, Tensor]:
    """Apply ActNorm and mixing; return log|det| as well."""
    logdet, made = halves[0].new_zeros(batch.rows.batch), {}
    for half, loc, scale in _norms(step, parameters):
        made[half] = batch.inside(scale * (halves[half] + loc), half)
        logdet = logdet + (batch.count(half, loc) * scale.abs().log()).sum(dim=1)
    if not step.mixing:
        return _pair(made), logdet
    return _back(step, batch.mixed(_ordered(step, _pair(made)), mixing_matrix(parameters[2]))), logdet


def _denormalise(batch: Batch, step: Step, parameters: list[Tensor], halves: Halves) -> Halves:
    """Undo :func:`_normalise`."""
    if step.mixing:
        halves = _back(step, batch.mixed(_ordered(step, halves), inverse_mixing_matrix(parameters[2])))
    return _pair(
        {half: batch.inside(halves[half] / scale - loc, half) for half, loc, scale in _norms(step, parameters)}
    )


def _denormalise_backward(
    batch: Batch, step: Step, parameters: list[Tensor], halves: Halves, grads: Halves
) -> tuple[Halves, Halves, list[Tensor]]:
    """Return the input of :func:`_denormalise`, its gradients, and those of ActNorm and mixing."""
    made, grads_made, own = {}, {}, []
    for half, loc, scale in _norms(step, parameters):
        shifted, grad = batch.inside(halves[half] + loc, half), grads[half] / scale
        own.append((-grads[half].sum(dim=0), -(grad * shifted).sum(dim=0)))
        made[half], grads_made[half] = shifted * scale, grad
    halves, grads, norm_grads = _pair(made), _pair(grads_made), _as_norm(own)
    if not step.mixing:
        return halves, grads, norm_grads
    y, factors = _ordered(step, halves), parameters[2]
    grad = batch.mixed(_ordered(step, grads), inverse_mixing_matrix(factors).t())
    grad_matrix = -exact_product((grad if batch.whole is None else grad * batch.whole).t(), y)
    norm_grads.append(mixing_backward(grad_matrix, factors))
    return _back(step, batch.mixed(y, mixing_matrix(factors))), _back(step, grad), norm_grads


def _coupled(said: Prediction, x: Tensor) -> Tensor:
    x = x - said.shift
    return x if said.log_scale is None else x * torch.exp(-said.log_scale)


def _uncoupled(said: Prediction, z: Tensor) -> Tensor:
    return (z if said.log_scale is None else z * torch.exp(said.log_scale)) + said.shift


def _changed(batch: Batch, step: Step, halves: Halves, new: Tensor) -> Halves:
    """Put the new values of the half that changes into its place."""
    return _pair({step.reads: halves[step.reads], step.changes: batch.inside(new, step.changes)})


def _with_read(batch: Batch, step: Step, grads: Halves, read: Tensor, changed: Tensor) -> Halves:
    """Add the gradient of what the WaveNet read; that of the other half is ``changed``."""
    return _pair({step.reads: batch.inside(grads[step.reads] + read, step.reads), step.changes: changed})


def _norms(step: Step, parameters: list[Tensor]) -> list[tuple[int, Tensor, Tensor]]:
    """List half, loc and scale of ActNorm, whose channels begin with the half that is read."""
    locs, scales = (parameter[0, :, 0].chunk(2) for parameter in parameters[:2])
    return list(zip((step.reads, step.changes), locs, scales, strict=True))


def _as_norm(grads: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Put gradients of loc and scale of the two halves, in the order of :func:`_norms`, together."""
    return [torch.cat(parts)[None, :, None] for parts in zip(*grads, strict=True)]


def _pair(by_half: dict[int, Tensor]) -> Halves:
    return by_half[0], by_half[1]


def _ordered(step: Step, halves: Halves) -> Tensor:
    """Put the half that is read before the other, shape (rows, C)."""
    return torch.cat([halves[step.reads], halves[step.changes]], dim=1)


def _back(step: Step, ordered: Tensor) -> Halves:
    """Undo :func:`_ordered`."""
    return _pair(dict(zip((step.reads, step.changes), ordered.chunk(2, dim=1), strict=True)))
