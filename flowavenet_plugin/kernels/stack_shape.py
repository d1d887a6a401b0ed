"""What the shapes of a gated stack's parameters don't say."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

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

    @cached_property
    def front_left(self) -> int:
        """Rows before an output that the front reads."""
        return self._left(FRONT_KERNEL_SIZE)

    @cached_property
    def lefts(self) -> list[int]:
        """Per layer: rows before an output that its convolution reads."""
        return [self._left(self.kernel_size, 2**i) for i in range(self.n_layer)]

    @property
    def widest(self) -> int:
        """Rows on each side (causal: in the past) that one convolution reaches at most."""
        return max(self.front_left, self.lefts[-1])

    @property
    def reach(self) -> int:
        """Rows on each side (causal: in the past) that one row of the output depends on."""
        return self.front_left + sum(self.lefts)

    def _left(self, kernel_size: int, dilation: int = 1) -> int:
        reach = (kernel_size - 1) * dilation
        return reach if self.causal else reach // 2
