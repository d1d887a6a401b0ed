"""Context blocks: flow steps at one rate, and the split that lets half of the channels leave."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowavenet_plugin.flow.chain import Chain, run_chain
from flowavenet_plugin.flow.step_passes import Step
from flowavenet_plugin.flow.transforms import ActNorm, AdditiveCoupling, AffineCoupling, GaussianSplit, Mixing, swap
from flowavenet_plugin.kernels.scratch import Memory

#: Layers of the WaveNet that parameterises a split's Gaussian.
PRIOR_LAYERS = 2


class FlowStep(nn.Module):
    """ActNorm, coupling, swap of halves (arXiv 1811.02155, figure 1); perhaps mixed channels before the coupling."""

    def __init__(
        self, channels: int, cond_channels: int, affine: bool, mixing: bool = False, **wavenet: int | bool
    ) -> None:
        """Build the step.

        Args:
            channels: Channels of x.
            cond_channels: Channels of the conditioning half that this step reads.
            affine: Affine coupling, else additive.
            mixing: Mix the channels of each column before the coupling, see :class:`Mixing`.
            wavenet: Options of the coupling's :class:`~flowavenet_plugin.flow.wavenet.WaveNet`.
        """
        super().__init__()
        self.actnorm = ActNorm(channels)
        self.mixing = Mixing(channels) if mixing else None
        self.coupling = (AffineCoupling if affine else AdditiveCoupling)(channels, cond_channels, **wavenet)

    def forward(self, x: Tensor, cond: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map x (B, C, T) to z, with log|det dz/dx| (B,) in nats; the mask of z is ``swap(mask)``."""
        x, scale_logdet = self.actnorm(x, None, mask)
        x = x if self.mixing is None else self.mixing(x, None, mask)[0]  # of determinant 1
        x, coupling_logdet = self.coupling(x, cond, mask)
        return swap(x), scale_logdet + coupling_logdet

    def chain_parameters(self) -> list[Tensor]:
        """List the parameters as :class:`~flowavenet_plugin.flow.step_passes.Step` counts them."""
        mixing = [] if self.mixing is None else [self.mixing.factors]
        return [self.actnorm.loc, self.actnorm.scale, *mixing, *self.coupling.net.stack_parameters()]

    def inverse(self, z: Tensor, cond: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map z (B, C, T) to x; ``mask`` is that of x."""
        x = self.coupling.inverse(swap(z), cond, mask)
        x = x if self.mixing is None else self.mixing.inverse(x, None, mask)
        return self.actnorm.inverse(x, None, mask)


class FlowBlock(nn.Module):
    """Flow steps on squeezed audio; in a multi-scale model some blocks end with a split.

    Steps swap the halves of squeezed conditioning as they swap those of the audio: step i reads conditioning half
    i % 2. Conditioning that is made for the block is read whole by each step.
    """

    def __init__(
        self,
        channels: int,
        cond_channels: int,
        n_flow: int,
        affine: bool,
        split: bool,
        n_layer: int,
        reversible: bool = True,
        cond_halves: bool = True,
        mixing: bool = False,
        share_stacks: bool = False,
        **wavenet: int | bool,
    ) -> None:
        """Build the block.

        Args:
            channels: Channels of the squeezed audio.
            cond_channels: Channels of the conditioning.
            n_flow: Number of flow steps.
            affine: Affine couplings, else additive.
            split: End with a :class:`GaussianSplit`.
            n_layer: Layers of each coupling's WaveNet.
            reversible: Rebuild activations in the backward pass instead of keeping them.
            cond_halves: Steps read halves of the conditioning, in turns; else all of it.
            mixing: Steps mix channels, see :class:`FlowStep`.
            share_stacks: The WaveNets of all steps share all but what they read of the conditioning and their end.
            wavenet: Further options of every WaveNet.
        """
        super().__init__()
        read = cond_channels // 2 if cond_halves else cond_channels
        self.reversible, self.cond_halves = reversible, cond_halves
        self._memory = Memory()
        own = dict(mixing=mixing, n_layer=n_layer, **wavenet)
        self.steps = nn.ModuleList(FlowStep(channels, read, affine, **own) for _ in range(n_flow))
        for step in self.steps[1:] if share_stacks else ():
            step.coupling.net.share(self.steps[0].coupling.net)
        wavenet = dict(n_layer=PRIOR_LAYERS, reversible=reversible, **wavenet)
        self.split = GaussianSplit(channels, cond_channels, **wavenet) if split else None

    def orient(self, x: Tensor | None) -> Tensor | None:
        """Swap halves of squeezed conditioning or mask as the steps do: what follows the block sees them so."""
        return swap(x) if x is not None and len(self.steps) % 2 else x

    def _split_cond(self, cond: Tensor) -> Tensor:
        return self.orient(cond) if self.cond_halves else cond

    def forward(self, x: Tensor, cond: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map x (B, C, T) to z, with log|det dz/dx| (B,) in nats; z's mask and conditioning are oriented."""
        return self.forward_shared(x, cond.transpose(1, 2), None, mask)

    def forward_shared(
        self, x: Tensor, cond: Tensor, order: Tensor | None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Run :meth:`forward` with conditioning that blocks may share; nothing of its size is kept.

        Args:
            x: Squeezed audio, shape (B, C, T).
            cond: Conditioning, shape (B, T * n, D / n).
            order: Its order, as in :class:`~flowavenet_plugin.flow.chain.Chain`.
            mask: As in :meth:`forward`.
        """
        keep = not self.reversible and torch.is_grad_enabled()
        memory = self._memory if torch.is_grad_enabled() else Memory()
        chain = Chain(self._plan(), self.steps[0].coupling.net.widest, order, keep, memory)
        if self.training and not all(step.actnorm.started for step in self.steps):
            self._start(x.detach(), chain.squeezed(cond.detach(), x.shape[2]), mask)
        parameters = [parameter for step in self.steps for parameter in step.chain_parameters()]
        x = x if mask is None else x * mask
        x, logdet = run_chain(chain, x, cond, mask, parameters)
        if self.split is not None:
            squeezed = chain.squeezed(cond, x.shape[2])
            x, split_logdet = self.split(x, self._split_cond(squeezed), self.orient(mask))
            logdet = logdet + split_logdet
        return x, logdet

    def _plan(self) -> list[Step]:
        halves = [i % 2 if self.cond_halves else None for i in range(len(self.steps))]
        return [
            Step(step.coupling.kind, step.coupling.net.shape, half, step.mixing is not None)
            for step, half in zip(self.steps, halves, strict=True)
        ]

    @torch.no_grad()
    def _start(self, x: Tensor, cond: Tensor, mask: Tensor | None) -> None:
        """Let every ActNorm see its first input."""
        for step, step_cond, step_mask in self._steps(cond, mask):
            x, _ = step(x, step_cond, step_mask)

    def inverse(self, z: Tensor, cond: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map z (B, C, T) to x; ``cond`` and ``mask`` are those given to :meth:`forward`."""
        if self.split is not None:
            z = self.split.inverse(z, self._split_cond(cond), self.orient(mask))
        for step, step_cond, step_mask in reversed(self._steps(cond, mask)):
            z = step.inverse(z, step_cond, step_mask)
        return z

    def _steps(self, cond: Tensor, mask: Tensor | None) -> list[tuple[nn.Module, Tensor, Tensor | None]]:
        conds = cond.chunk(2, dim=1) if self.cond_halves else (cond, cond)
        masks = (mask, None if mask is None else swap(mask))
        return [(step, conds[i % 2], masks[i % 2]) for i, step in enumerate(self.steps)]
