"""Seeds of the noise."""

from __future__ import annotations

import zlib

from torch import Tensor


def noise_seed(seed: int, feats: Tensor) -> tuple[int, int]:
    """Make the seed of an utterance from the seed of a run and the features themselves.

    So an utterance sounds the same at any place in a list, in any number of jobs and through any command, and two
    different utterances never share their noise.

    Args:
        seed: Seed of the run, from 0.
        feats: Features, shape (frames, n_mels).

    Returns:
        What :meth:`AbsVocoder.inference` takes as ``seed``.
    """
    return seed, zlib.crc32(feats.detach().float().cpu().contiguous().numpy().tobytes())
