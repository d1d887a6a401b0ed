"""Checkpoints of the original code: every key mapped or dropped on purpose, sizes read off the shapes."""

from __future__ import annotations

import pytest
import torch

import golden_weights
from flowavenet_plugin.vocoder.original_weights import import_state_dict

GOLDEN = golden_weights.load("tiny_multiscale")


def test_every_key_is_mapped_or_dropped_on_purpose() -> None:
    states = GOLDEN.state_dict(torch.float32)
    imported = import_state_dict({f"module.{key}": value for key, value in states.items()})
    assert set(imported.mapped) | set(imported.dropped) == set(states)
    assert not set(imported.mapped) & set(imported.dropped)
    assert all(".res_conv." in key for key in imported.dropped)
    joined = sum(value.numel() for key, value in imported.state_dict.items() if not key.endswith("initialized"))
    assert joined == sum(states[key].numel() for key in imported.mapped)
    assert all(value == 1 for key, value in imported.state_dict.items() if key.endswith("initialized"))


def test_sizes_are_read_off_the_shapes() -> None:
    sizes = import_state_dict(GOLDEN.state_dict(torch.float32)).sizes
    assert sizes == dict(
        n_mels=GOLDEN.config["cin_channel"],
        n_block=4,
        n_flow=2,
        n_layer=2,
        filter_size=256,
        kernel_size=3,
        block_per_split=2,
        affine=True,
        upsample_scales=[16, 16],
    )
    assert not import_state_dict(golden_weights.load("tiny_additive").state_dict()).sizes["affine"]


def test_unknown_and_missing_keys() -> None:
    states = GOLDEN.state_dict(torch.float32)
    for name in ("blocks.0.flows.0.more.weight", "blocks.0.flows.0.coupling.net.more.bias", "blocks.0.prior.x.scale"):
        with pytest.raises(ValueError, match=name):
            import_state_dict({**states, name: torch.zeros(1)})
    with pytest.raises(ValueError, match="front_conv"):
        import_state_dict({key: value for key, value in states.items() if "front_conv" not in key})
