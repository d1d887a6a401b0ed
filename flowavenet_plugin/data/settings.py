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
    try:
        return yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not a YAML file of plain values: {error}") from error
