"""Weights that a training starts from (``--init_param``), and reading within ESPnet2: weights alone, never code."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from espnet2.tasks import abs_task
from torch import Tensor, nn

from flowavenet_plugin.vocoder.loading import PREFIX, check_keys, read_state_dict, weights_only


@dataclass(frozen=True)
class InitParam:
    """A value of ``--init_param``, ``FILE[:SOURCE[:TARGET[:EXCLUDED,...]]]``, as ESPnet2 defines it.

    Names count from the vocoder on, with or without ``vocoder.`` before them.

    Attributes:
        path: The file, or a packed model.
        source: Only the tensors below this name of the file; empty: all.
        target: The part of the vocoder that they are for; empty: the whole.
        excluded: Tensors of the file whose names begin so are left out.
    """

    path: str
    source: str = ""
    target: str = ""
    excluded: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> InitParam:
        """Read the option's value; a SOURCE alone is the TARGET as well.

        Raises:
            ValueError: If it has more than four parts.
        """
        if Path(text).exists():  # a name with a colon
            return cls(text)
        path, *parts = text.split(":")
        if len(parts) > 3:
            raise ValueError(f"--init_param {text}: FILE:SOURCE:TARGET:EXCLUDED is as much as it may have")
        source, target, excluded = (*parts, "", "", "")[:3]
        names = tuple(_in_vocoder(name) for name in excluded.split(",") if name)
        return cls(path, _in_vocoder(source), _in_vocoder(target or source), names)

    @property
    def parts(self) -> str:
        """What of the file goes where, in one word: however it is written; empty for all of it."""
        words = (self.source, self.target, ",".join(sorted(self.excluded)))
        return ":".join(("", *words)) if any(words) else ""

    def keeps(self, name: str) -> bool:
        """Whether a tensor below ``source``, by its name there, isn't excluded."""
        return not any(_join(self.source, name).startswith(start) for start in self.excluded)


def starting_weights(text: str, model: nn.Module, ignore_mismatch: bool = False) -> dict[str, Tensor]:
    """Read what ``--init_param`` names, for a training model.

    Args:
        text: Value of the option, see :class:`InitParam`. The file may be whatever ``load_vocoder`` takes.
        model: The training model.
        ignore_mismatch: Leave out what doesn't fit instead of refusing it.

    Returns:
        Tensors by the model's names.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If it is broken, holds code, is the checkpoint of a run, or doesn't fit the model.
    """
    wanted = InitParam.parse(text)
    if Path(wanted.path).name == "checkpoint.pth":
        raise ValueError(f"--init_param {text} is the checkpoint of a run: give weights, such as latest.pth beside it")
    states = _below(read_state_dict(wanted.path), wanted.source)
    part = _below(model.vocoder.state_dict(), wanted.target)
    if not part:
        raise ValueError(f"--init_param {text}: the vocoder has no part {wanted.target}")
    found, expected = (
        {PREFIX + _join(wanted.target, name): value for name, value in side.items() if wanted.keeps(name)}
        for side in (states, part)
    )
    # Parts that only training has may come with the weights, or begin anew.
    own = tuple(PREFIX + name for name in model.vocoder.training_only)
    found = {name: value for name, value in found.items() if name in expected or not name.startswith(own)}
    for part in (PREFIX + name for name in model.vocoder.may_be_new):
        asked = f"{PREFIX}{wanted.target}.".startswith(part)  # by name: then it must be there
        if not (asked or any(name.startswith(part) for name in found)) and any(n.startswith(part) for n in expected):
            logging.warning(f"--init_param {text} has no {part.rstrip('.')}: it begins anew")
            own += (part,)
    expected = {name: value for name, value in expected.items() if name in found or not name.startswith(own)}
    if ignore_mismatch:
        found = _fitting(found, expected, text)
        if not found:
            names = ", ".join([*expected][:3])
            raise ValueError(f"--init_param {text} has nothing that fits the model, whose names are {names}, ...")
    else:
        check_keys(expected, found, text, "the options of this training")
    return found


def _in_vocoder(name: str) -> str:
    """Return a name as the vocoder has it."""
    return f"{name.strip()}.".removeprefix(PREFIX).removesuffix(".")


def _join(part: str, name: str) -> str:
    return f"{part}.{name}" if part else name


def _below(states: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Return the tensors of a part, by their names within it."""
    start = f"{part}." if part else ""
    return {name.removeprefix(start): value for name, value in states.items() if name.startswith(start)}


def _fitting(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return the tensors that the model has in the same shape, and log the others."""
    fitting = {name: value for name, value in found.items() if name in expected and value.shape == expected[name].shape}
    for name, value in found.items():
        if name not in fitting:
            there = f"has shape {tuple(expected[name].shape)}" if name in expected else "isn't there"
            logging.warning(f"{source}: {name} of shape {tuple(value.shape)} is left out: in the model it {there}")
    return fitting


def load_starting_weights(
    init_param: str, model: nn.Module, ignore_init_mismatch: bool, map_location: str = "cpu"
) -> None:
    """Load ``--init_param`` into the model; takes the place, and the arguments, of ESPnet2's load_pretrained_model."""
    states = starting_weights(init_param, model, ignore_init_mismatch)
    model.load_state_dict({**model.state_dict(), **states})


@contextlib.contextmanager
def weights_only_in_espnet2() -> Iterator[None]:
    """While open, nothing that ESPnet2 reads by ``torch.load`` runs code, and ``--init_param`` is read by this module.

    ESPnet2 reads weights and checkpoints with ``weights_only=False`` and offers no hook at these places; so the
    functions themselves are replaced, for as long as the training runs.
    """
    plain_load, plain_start = torch.load, abs_task.load_pretrained_model

    def load(f: Any, *args: Any, **kwargs: Any) -> Any:
        with weights_only(f):
            return plain_load(f, *args, **{**kwargs, "weights_only": True})

    torch.load, abs_task.load_pretrained_model = load, load_starting_weights
    try:
        yield
    finally:
        torch.load, abs_task.load_pretrained_model = plain_load, plain_start
