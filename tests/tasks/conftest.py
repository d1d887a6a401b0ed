"""What the tests of training share."""

from __future__ import annotations

from pathlib import Path

import pytest

import tiny_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with training and validation sets: three batches of two per epoch."""
    root = tmp_path_factory.mktemp("corpus")
    tiny_corpus.make_corpus(root / "train")
    tiny_corpus.make_corpus(root / "valid", n_utts=2)
    return root
