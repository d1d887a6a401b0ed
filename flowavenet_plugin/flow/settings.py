"""Sizes and settings of the network: names, defaults, what each means and which can't be. The one place for them.

Constructors, ``--vocoder_conf``, ``--print_config``, docs/architecture.md and the comments of the presets follow.
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
#: What becomes sound: standard normal noise; or pulses at the pitch as its mean where speech is voiced.
SOURCES = ("noise", "pulses")


def _setting(default: object, meaning: str) -> Any:
    return dataclasses.field(default=default, metadata=dict(meaning=meaning))


@dataclass(frozen=True, kw_only=True)
class FlowSettings:
    """What :class:`~flowavenet_plugin.flow.FloWaveNet` is built of; defaults are the paper's.

    Raises:
        ValueError: If a size is out of range.
    """

    n_mels: int = _setting(80, "mel bands of the conditioning")
    n_block: int = _setting(8, "context blocks; each halves the rate")
    n_flow: PerBlock = _setting(6, "flow steps (ActNorm, coupling, swap) of each block")
    n_layer: PerBlock = _setting(2, "dilated layers of the WaveNet in each coupling")
    filter_size: PerBlock = _setting(256, "channels of these WaveNets; memory and time grow with it")
    kernel_size: int = _setting(3, "taps of their dilated convolutions, odd unless causal")
    block_per_split: PerBlock = _setting(
        4, "half of the channels leave after every so many blocks; a list: after these; n_block: never"
    )
    affine: bool = _setting(True, "couplings scale and shift; false: shift only")
    causal: bool = _setting(False, "true: WaveNets that see the past only")
    upsample_scales: Sequence[int] = _setting((16, 16), "mel upsampling; the product is the hop length in samples")
    reversible: bool = _setting(
        True, "true: training rebuilds activations: less memory for more time; false: keeps them"
    )
    first_squeeze: int = _setting(2, "samples that a column of the first block holds, a power of two")
    cond_channels: PerBlock = _setting(0, "channels of conditioning made for each block; 0: mels squeezed like audio")
    cond_filter_size: int = _setting(256, "hidden channels of the network on frames that makes it")
    cond_n_layer: int = _setting(2, "residual layers of that network")
    mixing: bool = _setting(False, "true: a matrix mixes the channels before each coupling")
    share_stacks: bool = _setting(False, "true: WaveNets of a block share all but conditioning and end")

    def __post_init__(self) -> None:
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


@dataclass(frozen=True, kw_only=True)
class VocoderSettings(FlowSettings):
    """What a vocoder adds: a linear prediction around the flow, and the noise that becomes sound."""

    temperature: float = _setting(0.8, "deviation of the noise in synthesis, from 0, unless decoding asks for another")
    prediction_order: int = _setting(0, "samples that a linear prediction from the features looks back; 0: none")
    prediction_channels: int = _setting(128, "channels of the network that tells its spectrum")
    mel_range: Sequence[float] = _setting((80.0, 7600.0), "lowest and highest frequency of the features in Hz")
    source: str = _setting("noise", "what becomes sound: noise, or pulses (at the pitch, and noise)")
    likelihood_weight: float = _setting(1.0, "weight of the negative log-likelihood (nats/sample) in the loss")
    sampled_weight: float = _setting(0.0, "weight of the distance in spectra of sampled speech from the recording")
    adversarial_weight: float = _setting(0.0, "weight of discriminators that judge sampled speech; 0: there are none")
    discriminator_channels: int = _setting(32, "channels of their first layers; the last have 16 times as many")
    blur: float = _setting(0.0, "share of training segments whose features are smoothed, as a TTS model's are")
    reader_channels: int = _setting(0, "channels of a network that sharpens features and tells their pitch; 0: none")
    reader_layers: int = _setting(6, "its layers")
    reader_weight: float = _setting(1.0, "weight of its loss; 0: it stays as it is")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source not in SOURCES:
            raise ValueError(f"source must be one of {', '.join(SOURCES)}, not {self.source!r}")
        if self.source != "noise" and self.prediction_order == 0:
            raise ValueError(f"source={self.source} needs a linear prediction: prediction_order is 0")
        for name in ("likelihood_weight", "sampled_weight", "adversarial_weight", "blur", "reader_weight"):
            value = getattr(self, name)
            if not (0 <= value < math.inf) or (name == "blur" and value > 1):
                raise ValueError(f"{name} must be a number from 0{' to 1' if name == 'blur' else ''}, not {value}")
        if self.discriminator_channels < 2 or self.discriminator_channels % 2:
            raise ValueError(f"discriminator_channels must be an even number from 2, not {self.discriminator_channels}")
        if self.reader_channels < 0 or self.reader_layers < 1:
            raise ValueError(
                f"reader_channels must be at least 0 and reader_layers at least 1, not {self.reader_channels} and "
                f"{self.reader_layers}"
            )
        if not (self.trains_flow or self.trains_reader):
            raise ValueError(
                "likelihood_weight, sampled_weight and adversarial_weight are all 0, and no network reads features "
                "(reader_channels, reader_weight): nothing is learnt"
            )

    @property
    def trains_flow(self) -> bool:
        """Whether the flow learns anything."""
        return bool(self.likelihood_weight or self.sampled_weight or self.adversarial_weight)

    @property
    def trains_reader(self) -> bool:
        """Whether there is a network that reads features, and it learns anything."""
        return bool(self.reader_channels and self.reader_weight)

    @property
    def flow(self) -> dict[str, Any]:
        """What of it the flow takes."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(FlowSettings)}


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
