"""Do features and audio belong together?"""

from __future__ import annotations

from collections.abc import Mapping

from flowavenet_plugin.data.lists import check_same_ids


def check_fit(utt: str, samples: int, frames: int, hop: int) -> None:
    """Check that audio and frames belong together: (frames - 1) * hop <= samples <= frames * hop.

    Raises:
        ValueError: If they don't; with the id, both numbers and the range that fits.
    """
    if not max(frames - 1, 0) * hop <= samples <= frames * hop or frames < 1:
        low, high = max(frames - 1, 0) * hop, frames * hop
        raise ValueError(
            f"{utt}: {samples} samples don't fit {frames} frames of hop {hop}, which need {low} to {high} samples"
        )


def check_feats(shapes: Mapping[str, tuple[int, int]], samples: Mapping[str, int], n_mels: int, hop: int) -> None:
    """Check every utterance's features against its audio.

    Args:
        shapes: Id -> (frames, dimension), see :func:`check_arks`.
        samples: Id -> samples, same ids.
        n_mels: The dimension that is wanted.
        hop: Samples per frame.

    Raises:
        ValueError: If ids, a dimension or a frame count don't fit; with the id and both numbers.
    """
    check_same_ids(shapes, samples, "the list of features", "the list of audio lengths")
    for utt, (frames, dim) in shapes.items():
        if dim != n_mels:
            raise ValueError(f"{utt}: features have {dim} dimensions, {n_mels} are wanted")
        check_fit(utt, samples[utt], frames, hop)
