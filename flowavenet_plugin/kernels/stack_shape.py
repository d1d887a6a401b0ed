"""What the shapes of a gated stack's parameters don't say."""

from __future__ import annotations

from dataclasses import dataclass

FRONT_KERNEL_SIZE = 3


@dataclass(frozen=True)
class StackShape:
    """Layers of a stack, and how far it reaches.

    Attributes:
        n_layer: Dilated layers; layer i has dilation 2**i.
        kernel_size: Taps of a dilated convolution.
        causal: Convolutions reach to the past only.
    """

    n_layer: int
    kernel_size: int
    causal: bool

    @property
    def n_parameters(self) -> int:
        """How many tensors :meth:`~.stack_weights.StackWeights.of` takes."""
        return 3 * (2 * self.n_layer + 3) + 3

    def left(self, kernel_size: int, dilation: int = 1) -> int:
        """Rows before an output that a convolution reads."""
        reach = (kernel_size - 1) * dilation
        return reach if self.causal else reach // 2

    @property
    def widest(self) -> int:
        """Rows on each side (causal: in the past) that one convolution reaches at most."""
        return max(self.left(FRONT_KERNEL_SIZE), self.left(self.kernel_size, 2 ** (self.n_layer - 1)))

    @property
    def reach(self) -> int:
        """Rows on each side (causal: in the past) that one row of the output depends on."""
        return self.left(FRONT_KERNEL_SIZE) + sum(self.left(self.kernel_size, 2**i) for i in range(self.n_layer))
