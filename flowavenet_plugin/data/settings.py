"""Settings in YAML files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from flowavenet_plugin.data.text import read_text


def read_settings(path: str | Path) -> Any:
    """Read a YAML file of plain values.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If it is no YAML, no UTF-8, or names objects of Python, which are never made.
    """
    text = read_text(path)
    try:
        return yaml.safe_load(text)
    except Exception as error:  # besides its own errors PyYAML lets those of numbers, dates and deep nesting pass
        raise ValueError(f"{path} is not a YAML file of plain values: {error}") from error


def read_options(path: str | Path) -> dict[str, Any]:
    """Read a YAML file of options and their values; an empty one has none.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If it is something else.
    """
    options = read_settings(path) or {}
    if not isinstance(options, dict) or not all(isinstance(key, str) for key in options):
        raise ValueError(f"{path} is no configuration of options and their values")
    return options


def read_feats_settings(path: str | Path) -> dict[str, Any]:
    """Read the settings of features, feats_extract.yaml.

    Returns:
        ``feats_extract``, the type, and ``feats_extract_conf``, its settings, of which ``n_mels`` and ``hop_length``
        are there.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If it is something else.
    """
    settings = read_options(path)
    kind, conf = settings.get("feats_extract"), settings.get("feats_extract_conf")
    if not isinstance(kind, str) or not isinstance(conf, dict):
        raise ValueError(f"{path} has no feats_extract or no feats_extract_conf: it is no list of settings of features")
    for key in ("n_mels", "hop_length"):
        value = conf.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{path}: {key} must be a positive whole number, not {value!r}")
    return settings
