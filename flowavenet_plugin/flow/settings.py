"""Sizes and settings of the network: names, defaults, what each means and which can't be. The one place for them.

Constructors, ``--vocoder_conf``, ``--print_config``, docs/architecture.md and the comments of the presets follow. What
a vocoder adds: vocoder/settings.py.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

#: One value, or one of each block.
PerBlock = int | Sequence[int]
Class = TypeVar("Class", bound=type)


def setting(default: object, meaning: str, most: int | None = None) -> Any:
    """Return a field of settings: its default, and what it means.

    ``most`` is the largest whole number that it may be, far above what makes sense: larger ones, as damaged files hold
    them, would take all memory, or days, before anything else is wrong.
    """
    return dataclasses.field(default=default, metadata=dict(meaning=meaning, most=most))


@dataclass(frozen=True, kw_only=True)
class FlowSettings:
    """What :class:`~flowavenet_plugin.flow.FloWaveNet` is built of; defaults are the paper's.

    Raises:
        ValueError: If a size is out of range.
    """

    n_mels: int = setting(80, "mel bands of the conditioning", most=16384)
    n_block: int = setting(8, "context blocks; each halves the rate", most=32)
    n_flow: PerBlock = setting(6, "flow steps (ActNorm, coupling, swap) of each block", most=1024)
    n_layer: PerBlock = setting(2, "dilated layers of the WaveNet in each coupling", most=32)
    filter_size: PerBlock = setting(256, "channels of these WaveNets; memory and time grow with it", most=16384)
    kernel_size: int = setting(3, "taps of their dilated convolutions, odd unless causal", most=1023)
    block_per_split: PerBlock = setting(
        4, "half of the channels leave after every so many blocks; a list: after these; n_block: never"
    )
    affine: bool = setting(True, "couplings scale and shift; false: shift only")
    causal: bool = setting(False, "true: WaveNets that see the past only")
    upsample_scales: Sequence[int] = setting(
        (16, 16), "mel upsampling; the product is the hop length in samples", most=16384
    )
    reversible: bool = setting(
        True, "true: training rebuilds activations: less memory for more time; false: keeps them"
    )
    first_squeeze: int = setting(2, "samples that a column of the first block holds, a power of two", most=65536)
    cond_channels: PerBlock = setting(
        0, "channels of conditioning made for each block; 0: mels squeezed like audio", most=16384
    )
    cond_filter_size: int = setting(256, "hidden channels of the network on frames that makes it", most=16384)
    cond_n_layer: int = setting(2, "residual layers of that network", most=1024)
    mixing: bool = setting(False, "true: a matrix mixes the channels before each coupling")
    share_stacks: bool = setting(False, "true: WaveNets of a block share all but conditioning and end")

    def __post_init__(self) -> None:
        self._check_sizes()
        every = isinstance(self.block_per_split, int)
        if self.n_block < 1 or (
            self.block_per_split < 1 if every else not all(0 < n < self.n_block for n in self.block_per_split)
        ):
            raise ValueError(
                f"n_block and block_per_split must be at least 1, and blocks that split less than n_block, not "
                f"n_block={self.n_block}, block_per_split={self.block_per_split}"
            )
        for name in ("n_flow", "n_layer", "filter_size"):
            if min(self.each(name)) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.kernel_size < 1 or (not self.causal and self.kernel_size % 2 == 0):
            raise ValueError(f"kernel_size must be positive, and odd if not causal, not {self.kernel_size}")
        if len(self.upsample_scales) == 0 or min(self.upsample_scales) < 2:  # 1 upsamples nothing
            raise ValueError(f"upsample_scales must be whole numbers from 2, not {list(self.upsample_scales)}")
        if self.first_squeeze < 2 or self.first_squeeze & (self.first_squeeze - 1):
            raise ValueError(f"first_squeeze must be a power of two from 2, not {self.first_squeeze}")
        channels = self.each("cond_channels")
        if self.cond_channels != 0 and (min(channels) < 1 or self.cond_filter_size < 1 or self.cond_n_layer < 0):
            raise ValueError(
                f"cond_channels and cond_filter_size must be at least 1 and cond_n_layer at least 0, not "
                f"{channels}, {self.cond_filter_size} and {self.cond_n_layer}"
            )

    def _check_sizes(self) -> None:
        for field in dataclasses.fields(self):
            value, most = getattr(self, field.name), field.metadata.get("most")
            values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
            for one in values if most is not None else ():
                if isinstance(one, bool) or not isinstance(one, int) or one > most:
                    raise ValueError(f"{field.name} must be whole numbers up to {most}, not {value!r}")

    def each(self, name: str) -> list[int]:
        """Return the value of each block.

        Raises:
            ValueError: If there are more or fewer than blocks.
        """
        value = getattr(self, name)
        values = [value] * self.n_block if isinstance(value, int) else list(value)
        if len(values) != self.n_block:
            raise ValueError(f"{name} has {len(values)} values, {values}, for n_block={self.n_block} blocks")
        return values

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        return math.prod(self.upsample_scales)

    @property
    def splits(self) -> list[int]:
        """Numbers of the blocks, counted from 1, that end with a split."""
        every = self.block_per_split
        return list(range(every, self.n_block, every)) if isinstance(every, int) else list(every)


def takes(settings: type[FlowSettings], *leading: str) -> Callable[[Class], Class]:
    """Let a class say in its signature and documentation that its constructor takes settings as keywords.

    Args:
        settings: What it takes.
        leading: Arguments before them, that have no default here; settings of these names aren't repeated.
    """

    def decorate(decorated: Class) -> Class:
        fields = [field for field in dataclasses.fields(settings) if field.name not in leading]
        kinds = inspect.Parameter
        parameters = [kinds(name, kinds.POSITIONAL_OR_KEYWORD, annotation=int) for name in leading]
        parameters += [kinds(f.name, kinds.KEYWORD_ONLY, default=f.default, annotation=f.type) for f in fields]
        own = kinds("self", kinds.POSITIONAL_OR_KEYWORD)
        decorated.__init__.__signature__ = inspect.Signature([own, *parameters])
        lines = [f"    {field.name}: {field.metadata['meaning']} (default {field.default})" for field in fields]
        decorated.__init__.__doc__ = "\n".join([inspect.cleandoc(decorated.__init__.__doc__), "", "Settings:", *lines])
        return decorated

    return decorate
