"""The bijections FloWaveNet is made of; all have one signature.

``forward(x, cond, mask) -> (z, logdet)`` and ``inverse(z, cond, mask) -> x`` with x and z of shape (B, C, T), cond of
shape (B, D, T), logdet = log|det dz/dx| per item in nats, shape (B,). Every transform changes each sample by an affine
map whose factors depend on other samples, so that its log-determinant is a sum over samples. The first half of the
channels is the one that a WaveNet reads. ``mask`` (B, C, T) is 1
for samples of the utterance and 0 for padding: padding stays zero through every transform and isn't counted. With
mask None all samples count.
"""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor, distributed, nn

from flowavenet_plugin.flow.arithmetic import exact_product, wavenet_dtype
from flowavenet_plugin.flow.mixing import inverse_mixing_matrix, mixing_matrix
from flowavenet_plugin.flow.plan import ADDITIVE, AFFINE, SPLIT, Block, Step
from flowavenet_plugin.flow.wavenet import WaveNet


def sum_samples(x: Tensor, mask: Tensor | None) -> Tensor:
    """Sum (B, C, T) over the samples inside the utterance, shape (B,)."""
    return (x if mask is None else x * mask).sum(dim=(1, 2))


#: Deviation below which a channel of the first batch says nothing about its scale: less than a step of 16-bit audio.
SILENT = 1e-5


class ActNorm(nn.Module):
    """Scale and shift per channel, started so that the first batch comes out standardised (arXiv 1807.03039).

    The start happens in the first forward pass in training mode, from the samples of all distributed processes, once:
    the buffer ``initialized`` is part of the state dict, so that a resumed or fine-tuned model isn't started again.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(1, channels, 1))
        self.scale = nn.Parameter(torch.ones(1, channels, 1))
        # A float: ESPnet2 averages the floats of the best models, and logs a line for every integer that it sums up.
        self.register_buffer("initialized", torch.zeros(()))
        self.started = False  # spares reading the buffer, which waits for the GPU, in every pass

    def forward(self, x: Tensor, cond: Tensor | None = None, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map x to z; see the module's text for shapes."""
        if self.training and not self.started:
            self._start(x, mask)
        log_scale = torch.log(torch.abs(self.scale))
        z = self.scale * (x + self.loc)
        if mask is not None:
            return z * mask, sum_samples(log_scale.expand_as(mask), mask)
        return z, (log_scale.sum() * x.shape[2]).expand(x.shape[0])

    def inverse(self, z: Tensor, cond: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Map z to x; see the module's text for shapes."""
        x = z / self.scale - self.loc
        return x if mask is None else x * mask

    @torch.no_grad()
    def _start(self, x: Tensor, mask: Tensor | None) -> None:
        if not self.initialized:
            mask = torch.ones_like(x) if mask is None else mask
            count = self._total(mask.sum(dim=(0, 2)))
            mean = self._total((x * mask).sum(dim=(0, 2))) / count  # (C,)
            squares = self._total(((x - mean[:, None]).square() * mask).sum(dim=(0, 2)))
            std = torch.sqrt(squares / (count - 1))
            self.loc.copy_(-mean[None, :, None])
            scale = torch.where(std < SILENT, 1.0, 1.0 / (std + 1e-6))
            self.scale.copy_(scale[None, :, None])
            self.initialized.fill_(1)
        self.started = True

    @staticmethod
    def _total(values: Tensor) -> Tensor:
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(values)
        return values

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.started = False


class Mixing(nn.Module):
    """Mix the channels of each column by one matrix, Glow's invertible 1x1 convolution (arXiv 1807.03039) as L U.

    Both triangles have ones on their diagonals, so that the determinant is 1: scale is ActNorm's business. It starts as
    the identity. A column that holds padding stays as it is, since padding must stay zero.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.zeros(channels, channels))  # L below the diagonal, U above

    def forward(self, x: Tensor, cond: Tensor | None = None, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map x to z; see the module's text for shapes."""
        return self._mix(mixing_matrix(self.factors), x, mask), x.new_zeros(x.shape[0])

    def inverse(self, z: Tensor, cond: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Map z to x; see the module's text for shapes."""
        return self._mix(inverse_mixing_matrix(self.factors), z, mask)

    @staticmethod
    def _mix(matrix: Tensor, x: Tensor, mask: Tensor | None) -> Tensor:
        mixed = exact_product(matrix, x).to(x)
        return mixed if mask is None else torch.where(mask.amin(dim=1, keepdim=True) > 0, mixed, x)


def shift_and_log_scale(kind: str, said: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return shift and log_scale of what a step's WaveNet says along dimension 1; log_scale None: not scaled.

    An affine coupling's says log_s, then t; an additive one's m, which is added; a split's mean, then log deviation.
    """
    if kind == ADDITIVE:
        return -said, None
    first, second = said.chunk(2, dim=1)
    return (first, second) if kind == SPLIT else (second, first)


class Coupling(nn.Module):
    """Base of what changes the second half of the channels, given the first: z_b = (x_b - shift) exp(-log_scale)."""

    #: As the plan names it.
    kind: str
    #: As the state dict names the WaveNet.
    name = "net"

    def __init__(self, channels: int, cond_channels: int, **wavenet: int | bool) -> None:
        """Build the network for an even number of channels; ``wavenet``: options of :class:`WaveNet`."""
        super().__init__()
        said = channels // 2 if self.kind == ADDITIVE else channels
        self.add_module(self.name, WaveNet(channels // 2, said, cond_channels, **wavenet))

    @property
    def wavenet(self) -> WaveNet:
        """The network."""
        return getattr(self, self.name)

    def chain_parameters(self) -> list[Tensor]:
        """List the parameters as :class:`~flowavenet_plugin.flow.plan.Step` counts them."""
        return self.wavenet.stack_parameters()

    def said(self, half: Tensor, cond: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return shift and log_scale, shape (B, C / 2, T), from the first half; log_scale None: not scaled.

        Under autocast the network runs in half precision; samples and log-determinants never do.
        """
        dtype = wavenet_dtype(half)
        lower = dtype != half.dtype
        columns = None if mask is None else mask.amax(dim=1, keepdim=True)  # that hold any sample
        with torch.autocast(half.device.type, dtype=dtype) if lower else contextlib.nullcontext():
            return shift_and_log_scale(self.kind, self.wavenet(half, cond, columns).to(half.dtype))

    def forward(self, x: Tensor, cond: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map x to z; see the module's text for shapes."""
        x_a, x_b = x.chunk(2, dim=1)
        shift, log_scale = self.said(x_a, cond, mask)
        z_b, logdet = x_b - shift, x.new_zeros(x.shape[0])
        if log_scale is not None:
            z_b = z_b * torch.exp(-log_scale)
            logdet = -sum_samples(log_scale, None if mask is None else mask.chunk(2, dim=1)[1])
        z = torch.cat([x_a, z_b], dim=1)
        return (z if mask is None else z * mask), logdet

    def inverse(self, z: Tensor, cond: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map z to x; see the module's text for shapes."""
        z_a, z_b = z.chunk(2, dim=1)
        shift, log_scale = self.said(z_a, cond, mask)
        x_b = (z_b if log_scale is None else z_b * torch.exp(log_scale)) + shift
        x = torch.cat([z_a, x_b], dim=1)
        return x if mask is None else x * mask


class AffineCoupling(Coupling):
    """z_b = (x_b - t) exp(-log_s), with log_s and t from a WaveNet of x_a (arXiv 1811.02155, section 3.2)."""

    kind = AFFINE


class AdditiveCoupling(Coupling):
    """z_b = x_b + m, with m from a WaveNet of x_a: the paper's volume-preserving variant."""

    kind = ADDITIVE


#: The coupling of each kind of step.
COUPLINGS = {AFFINE: AffineCoupling, ADDITIVE: AdditiveCoupling}


class GaussianSplit(Coupling):
    """Whiten the second half of the channels by a Gaussian whose mean and scale a WaveNet reads off the first half.

    The whitened half leaves the flow as noise (multi-scale architecture of arXiv 1811.02155, section 3.4): the
    log-density of the half under its Gaussian is the standard-normal log-density of z_b plus the log-determinant.
    """

    kind, name = SPLIT, "prior"


class FlowStep(nn.Module):
    """ActNorm and coupling (arXiv 1811.02155, figure 1); perhaps mixed channels between them.

    Which half of the channels comes first, the swap, is the plan's business.
    """

    def __init__(self, step: Step, channels: int, cond_channels: int, **wavenet: int | bool) -> None:
        """Build what the plan says, for channels of x and of the conditioning that is read; see :class:`Coupling`."""
        super().__init__()
        self.actnorm = ActNorm(channels)
        self.mixing = Mixing(channels) if step.mixing else None
        self.coupling = COUPLINGS[step.kind](channels, cond_channels, **wavenet)

    def chain_parameters(self) -> list[Tensor]:
        """List the parameters as :class:`~flowavenet_plugin.flow.plan.Step` counts them."""
        mixing = [] if self.mixing is None else [self.mixing.factors]
        return [self.actnorm.loc, self.actnorm.scale, *mixing, *self.coupling.chain_parameters()]

    def forward(self, x: Tensor, cond: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map x to z; see the module's text for shapes."""
        x, scale_logdet = self.actnorm(x, None, mask)
        x = x if self.mixing is None else self.mixing(x, None, mask)[0]  # of determinant 1
        x, coupling_logdet = self.coupling(x, cond, mask)
        return x, scale_logdet + coupling_logdet

    def inverse(self, z: Tensor, cond: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map z to x; see the module's text for shapes."""
        x = self.coupling.inverse(z, cond, mask)
        x = x if self.mixing is None else self.mixing.inverse(x, None, mask)
        return self.actnorm.inverse(x, None, mask)


class FlowBlock(nn.Module):
    """The modules of a block's steps; :mod:`.definition` runs them."""

    def __init__(self, block: Block, share_stacks: bool) -> None:
        """Build what the plan says; with ``share_stacks`` WaveNets share all but conditioning and end."""
        super().__init__()

        def sizes(step: Step) -> dict[str, int | bool]:
            read = block.cond_channels if step.conds is None else block.cond_channels // 2 * len(step.conds)
            shape = step.stack
            wavenet = dict(n_layer=shape.n_layer, kernel_size=shape.kernel_size, causal=shape.causal)
            return dict(channels=block.channels, cond_channels=read, filter_size=block.width, **wavenet)

        couplings = [step for step in block.steps if step.kind != SPLIT]
        self.steps = nn.ModuleList(FlowStep(step, **sizes(step)) for step in couplings)
        for step in self.steps[1:] if share_stacks else ():
            step.coupling.net.share(self.steps[0].coupling.net)
        self.split = GaussianSplit(**sizes(block.steps[-1])) if block.kept is not None else None

    @property
    def parts(self) -> list[FlowStep | GaussianSplit]:
        """The module of each step of the plan."""
        return [*self.steps, *([] if self.split is None else [self.split])]

    def chain_parameters(self) -> list[Tensor]:
        """List the parameters of all steps."""
        return [parameter for part in self.parts for parameter in part.chain_parameters()]
