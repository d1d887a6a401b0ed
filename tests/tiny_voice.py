"""A small vocoder on disk whose noise can be heard, for tests of what loads one."""

from __future__ import annotations

from pathlib import Path

import torch

import tiny_corpus
from flowavenet_plugin.data.features import full_settings
from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder
from flowavenet_plugin.vocoder.loading import save_vocoder


def make_voice(folder: Path) -> Path:
    """Write config.yaml and model.pth, not trained, with couplings that do something; return the weights' path."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vocoder = FloWaveNetVocoder(tiny_corpus.FS, tiny_corpus.HOP, tiny_corpus.N_MELS, **tiny_corpus.VOCODER_CONF)
        for parameter in vocoder.parameters():
            parameter.data.add_(0.02 * torch.randn_like(parameter))
    vocoder.flow.blocks[0].steps[0].actnorm.scale.data.fill_(8.0)  # quiet enough for PCM
    config = dict(
        vocoder="flowavenet",
        vocoder_conf=tiny_corpus.VOCODER_CONF,
        feats_extract="fbank",
        feats_extract_conf=full_settings("fbank", tiny_corpus.FEATS_CONF),
    )
    return save_vocoder(vocoder, config, folder)
