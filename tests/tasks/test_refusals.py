"""Options of training that are refused at once."""

from __future__ import annotations

import argparse

import pytest

from flowavenet_plugin.tasks.refusals import check_options


def test_a_vocoder_without_weights_is_not_trained() -> None:
    with pytest.raises(ValueError, match="--vocoder mel_inversion has no weights.*make_mel_inversion writes one"):
        check_options(argparse.Namespace(vocoder="mel_inversion"))
