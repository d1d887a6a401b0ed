"""Pickling a vocoder, as processes that are spawned, Ray and joblib do: sizes, settings and weights, nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch

from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder

#: What of a vocoder isn't in its weights, and may have been changed.
_SWITCHES = ("temperature", "checks", "cuda_graphs")


def reduced(vocoder: AbsVocoder, settings: Mapping[str, Any]) -> tuple[Callable[..., AbsVocoder], tuple]:
    """Return what :func:`pickle.dump` writes of a vocoder: torch can't write modules with weight normalisation.

    Args:
        vocoder: The vocoder.
        settings: Its constructor's arguments, besides rate, hop and bands.
    """
    sizes = dict(fs=vocoder.fs, hop_length=vocoder.hop_length, n_mels=vocoder.n_mels)
    features = vocoder.feats_extract, dict(vocoder.feats_extract_conf)
    switches = {name: getattr(vocoder, name) for name in _SWITCHES if hasattr(vocoder, name)}
    own = tuple(vocoder.training_only)
    state = {name: value.detach() for name, value in vocoder.state_dict().items() if not name.startswith(own)}
    return _rebuilt, (type(vocoder), {**sizes, **settings}, features, switches, vocoder.training, state)


def _rebuilt(
    kind: type[AbsVocoder],
    arguments: Mapping[str, Any],
    features: tuple[str, Mapping[str, Any]],
    switches: Mapping[str, Any],
    training: bool,
    state: Mapping[str, torch.Tensor],
) -> AbsVocoder:
    like = state["feats_mean"]
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        vocoder = kind(**arguments).to(like.device, like.dtype)
    vocoder.load_state_dict(state)
    vocoder.set_features(*features)
    for name, value in switches.items():
        setattr(vocoder, name, value)
    return vocoder.train(training)


def copied(vocoder: AbsVocoder, memo: dict[int, Any]) -> AbsVocoder:
    """Return a deep copy, made as that of any module: all of it, also what a pickle leaves out."""
    for module in vocoder.modules():  # what torch's former weight normalisation leaves beside its parameters
        weight = module.__dict__.get("weight")
        if isinstance(weight, torch.Tensor) and weight.grad_fn is not None:
            module.weight = weight.detach()
    twin = type(vocoder).__new__(type(vocoder))
    memo[id(vocoder)] = twin
    twin.__dict__.update(copy.deepcopy(vocoder.__dict__, memo))
    return twin
