"""Configurations that benchmarks/family.py compares: the presets, the paper's scaled twin, and one option at a time."""

from __future__ import annotations

from pathlib import Path

import yaml

CONF = Path(__file__).parents[1] / "conf"
#: Name of each preset, and its file in conf/.
PRESETS = {
    "flowavenet": "train_flowavenet.yaml",
    "flowavenet_base": "train_flowavenet_base.yaml",
    "flowavenet_small": "train_flowavenet_small.yaml",
}
#: Without what every preset but the paper's has.
PLAIN = dict(prediction_order=0, mixing=False)
#: What each row changes of another row.
CHANGES: dict[str, tuple[str, dict[str, object]]] = {
    "paper_twin": ("flowavenet", dict(filter_size=64)),
    "twin_block_cond": ("paper_twin", dict(cond_channels=64)),
    "twin_prediction": ("paper_twin", dict(prediction_order=128)),
    "base_plain": ("flowavenet_base", PLAIN),
    "small_plain": ("flowavenet_small", PLAIN),
    "small_paper_cond": ("small_plain", dict(cond_channels=0)),
    "small_squeeze_2": ("small_plain", dict(first_squeeze=2, n_block=8, n_layer=2, filter_size=64)),
    "small_squeeze_4": (
        "small_plain",
        dict(first_squeeze=4, n_block=7, n_layer=[2, 2, 2, 3, 3, 3, 3], filter_size=[64, 64, 64, 64, 96, 96, 128]),
    ),
    "small_one_width": ("small_plain", dict(filter_size=64)),
    "small_two_layers": ("small_plain", dict(n_layer=2)),
    "small_no_split": ("small_plain", dict(block_per_split=6)),
    "small_prediction": ("small_plain", dict(prediction_order=128)),
    "small_shared": ("small_plain", dict(share_stacks=True)),
    "small_mixing": ("small_plain", dict(mixing=True)),
}


def names() -> list[str]:
    """List all rows."""
    return [*PRESETS, *CHANGES]


def options(name: str) -> dict[str, object]:
    """Return the vocoder's options, without those of decoding.

    Raises:
        ValueError: If there is no such row.
    """
    if name in PRESETS:
        conf = yaml.safe_load((CONF / PRESETS[name]).read_text()).get("vocoder_conf", {})
        return {key: value for key, value in conf.items() if key != "temperature"}
    if name not in CHANGES:
        raise ValueError(f"no row is named {name!r}; there are {', '.join(names())}")
    parent, changed = CHANGES[name]
    return {**options(parent), **changed}
