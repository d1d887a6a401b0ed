"""Batches of aligned segments of waveform and features."""

from __future__ import annotations

import zlib
from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

from flowavenet_plugin.data.audio import check_scale
from flowavenet_plugin.data.scp import check_fit

Example = tuple[str, dict[str, np.ndarray]]

#: Name in an example's data of the integers that its random numbers are drawn from.
DRAW = "draw"

#: Distance between two values of 16-bit audio, whose amplitude is in [-1, 1].
QUANTISATION_STEP = 2.0**-15


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
            ValueError: If a shape or type doesn't fit, values aren't finite, or audio is far beyond full scale; the
                message names the utterance.
        """
        speech, feats = data["speech"], data["feats"]
        if speech.ndim != 1:
            raise ValueError(f"utterance {uid}: expected one channel, the audio has shape {speech.shape}")
        if speech.dtype.kind != "f":
            raise ValueError(
                f"utterance {uid}: the audio is of type {speech.dtype}, floats within ±1 are wanted (data type sound)"
            )
        if feats.ndim != 2 or feats.shape[1] != self.n_mels:
            raise ValueError(f"utterance {uid}: features of shape {feats.shape}, expected (frames, {self.n_mels})")
        check_scale(speech, f"utterance {uid}: the audio")
        check_fit(f"utterance {uid}", len(speech), len(feats), self.hop_length)
        for name, values in data.items():
            if not np.isfinite(values).all():
                raise ValueError(f"utterance {uid}: {name} holds {int((~np.isfinite(values)).sum())} non-finite values")
        return data


class SegmentCollate:
    """Cut a segment out of each utterance and stack them: ESPnet2's collate function.

    In training the place, and noise if wanted, are drawn anew each time: from the utterance id and the integers that
    came with the data (its draw), whatever process or worker does it; without such from numpy's global generator.
    In validation the place is fixed by the utterance id alone, so that epochs compare. Cutting happens here and not
    where ESPnet2 caches what it read, so that a cached utterance still gives new segments.
    """

    def __init__(self, hop_length: int, segment_frames: int | None, train: bool, dequantize: bool = False) -> None:
        """Keep the settings.

        Args:
            hop_length: Samples per frame.
            segment_frames: Frames of a segment; shorter utterances are padded, and their lengths tell. None: whole
                utterances.
            train: Draw places anew.
            dequantize: Add noise to the audio in training, uniform within a quantisation step of 16-bit audio, so that
                a density can't grow without bound on the values that such audio takes.
        """
        self.hop_length = hop_length
        self.segment_frames = segment_frames
        self.train = train
        self.dequantize = dequantize and train

    def __repr__(self) -> str:
        """Name the settings, for logs."""
        settings = ("segment_frames", "hop_length", "train", "dequantize")
        return f"SegmentCollate({', '.join(f'{name}={getattr(self, name)}' for name in settings)})"

    def __call__(self, examples: Collection[Example]) -> tuple[list[str], dict[str, Tensor]]:
        """Return ids and a batch.

        Args:
            examples: Pairs of id and ``speech`` (samples,), ``feats`` (frames, n_mels), maybe ``draw`` (integers).

        Returns:
            Ids; and ``speech`` (B, samples), ``feats`` (B, frames, n_mels), and unless all are whole segments
            ``speech_lengths`` (B,) and ``feats_lengths`` (B,): what is on a GPU then needn't be read to know that
            nothing is padding.
        """
        pairs = [self._segment(uid, **data) for uid, data in examples]
        batch, lengths = {}, {}
        for name, arrays in zip(("speech", "feats"), zip(*pairs, strict=True), strict=True):
            sequences = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
            batch[name] = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
            lengths[f"{name}_lengths"] = torch.tensor([len(sequence) for sequence in sequences])
        if bool((lengths["speech_lengths"] != self.hop_length * batch["feats"].shape[1]).any()):
            batch.update(lengths)
        return [uid for uid, _ in examples], batch

    def _segment(
        self, uid: str, speech: np.ndarray, feats: np.ndarray, draw: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        key = [zlib.crc32(uid.encode())]
        if self.train:
            key += [np.random.randint(2**31)] if draw is None else draw.tolist()
        generator = np.random.default_rng(key)
        # The last frame may lack samples, so that only whole frames are places for a segment.
        choices = 0 if self.segment_frames is None else len(speech) // self.hop_length - self.segment_frames + 1
        if choices >= 1:
            start = int(generator.integers(choices))
            stop = start + self.segment_frames
            speech, feats = speech[start * self.hop_length : stop * self.hop_length], feats[start:stop]
        if self.dequantize:
            noise = QUANTISATION_STEP * generator.uniform(-0.5, 0.5, len(speech))
            speech = speech + noise.astype(speech.dtype)
        return speech, feats
