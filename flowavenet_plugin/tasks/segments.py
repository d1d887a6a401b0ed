"""Batches of aligned segments of waveform and features."""

from __future__ import annotations

import zlib
from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

from flowavenet_plugin.data.scp import check_fit

Example = tuple[str, dict[str, np.ndarray]]


class CheckPair:
    """Check each utterance as it is read: ESPnet2's ``preprocess`` function, called with the utterance id."""

    def __init__(self, hop_length: int, n_mels: int) -> None:
        """Keep the sizes: samples per frame, mel bands."""
        self.hop_length = hop_length
        self.n_mels = n_mels

    def __call__(self, uid: str, data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return ``data`` as it is.

        Args:
            uid: Utterance id.
            data: ``speech`` (samples,) and ``feats`` (frames, n_mels).

        Raises:
            ValueError: If a shape doesn't fit, or values aren't finite; the message names the utterance.
        """
        speech, feats = data["speech"], data["feats"]
        if speech.ndim != 1:
            raise ValueError(f"utterance {uid}: expected one channel, the audio has shape {speech.shape}")
        if feats.ndim != 2 or feats.shape[1] != self.n_mels:
            raise ValueError(f"utterance {uid}: features of shape {feats.shape}, expected (frames, {self.n_mels})")
        check_fit(f"utterance {uid}", len(speech), len(feats), self.hop_length)
        for name, values in data.items():
            if not np.isfinite(values).all():
                raise ValueError(f"utterance {uid}: {name} holds {int((~np.isfinite(values)).sum())} non-finite values")
        return data


class SegmentCollate:
    """Cut a segment out of each utterance and stack them: ESPnet2's collate function.

    In training the place is drawn anew each time, from numpy's global generator, which ESPnet2 seeds with seed, epoch
    and worker, together with the utterance id, so that processes that read different utterances draw different places.
    In validation the place is fixed by the utterance id alone, so that epochs compare. Cutting happens here and not
    where ESPnet2 caches what it read, so that a cached utterance still gives new segments.
    """

    def __init__(self, hop_length: int, segment_frames: int, train: bool) -> None:
        """Keep the settings.

        Args:
            hop_length: Samples per frame.
            segment_frames: Frames of a segment; shorter utterances are padded, and their lengths tell.
            train: Draw places anew.
        """
        self.hop_length = hop_length
        self.segment_frames = segment_frames
        self.train = train

    def __repr__(self) -> str:
        """Name the settings, for logs."""
        return f"SegmentCollate(segment_frames={self.segment_frames}, hop_length={self.hop_length}, train={self.train})"

    def __call__(self, examples: Collection[Example]) -> tuple[list[str], dict[str, Tensor]]:
        """Return ids and a batch.

        Args:
            examples: Pairs of id and ``speech`` (samples,), ``feats`` (frames, n_mels).

        Returns:
            Ids; and ``speech`` (B, samples), ``feats`` (B, frames, n_mels), and unless all are whole segments
            ``speech_lengths`` (B,) and ``feats_lengths`` (B,): what is on a GPU then needn't be read to know that
            nothing is padding.
        """
        pairs = [self._segment(uid, data["speech"], data["feats"]) for uid, data in examples]
        batch, lengths = {}, {}
        for name, arrays in zip(("speech", "feats"), zip(*pairs, strict=True), strict=True):
            sequences = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
            batch[name] = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
            lengths[f"{name}_lengths"] = torch.tensor([len(sequence) for sequence in sequences])
        if bool((lengths["speech_lengths"] != self.hop_length * batch["feats"].shape[1]).any()):
            batch.update(lengths)
        return [uid for uid, _ in examples], batch

    def _segment(self, uid: str, speech: np.ndarray, feats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # The last frame may lack samples, so that only whole frames are places for a segment.
        choices = len(speech) // self.hop_length - self.segment_frames + 1
        if choices < 1:
            return speech, feats
        key = [zlib.crc32(uid.encode())]
        if self.train:
            key.append(np.random.randint(2**31))
        start = int(np.random.default_rng(key).integers(choices))
        stop = start + self.segment_frames
        return speech[start * self.hop_length : stop * self.hop_length], feats[start:stop]
