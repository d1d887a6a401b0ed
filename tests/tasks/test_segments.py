"""Segments: wav and frames cut together, as their draw says; checks of what was read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flowavenet_plugin.tasks.segments import DRAW, QUANTISATION_STEP, CheckPair, SegmentCollate

HOP, BANDS, FRAMES = 4, 3, 5


def utterance(frames: int = 40, missing: int = 0) -> dict[str, np.ndarray]:
    """Return audio whose samples count up, and frames that hold their own number."""
    samples = frames * HOP - missing
    feats = np.repeat(np.arange(frames, dtype=np.float32)[:, None], BANDS, axis=1)
    return dict(speech=np.arange(samples, dtype=np.float32), feats=feats)


def quiet(missing: int = 0) -> dict[str, np.ndarray]:
    """Return three frames whose audio is within full scale."""
    data = utterance(3, missing)
    return dict(data, speech=0.01 * data["speech"])


def starts(batch: dict[str, torch.Tensor]) -> list[int]:
    """Return the first frame of each segment, after checking that wav and frames belong together."""
    assert torch.equal(batch["speech"][:, ::HOP], batch["feats"][:, :, 0] * HOP)
    return [int(first) for first in batch["feats"][:, 0, 0]]


def test_wav_and_frames_are_cut_together() -> None:
    collate = SegmentCollate(HOP, FRAMES, train=True)
    np.random.seed(0)
    ids, batch = collate([(f"u{i}", utterance(missing=i)) for i in range(3)])
    assert ids == ["u0", "u1", "u2"]
    assert batch["speech"].shape == (3, FRAMES * HOP) and batch["feats"].shape == (3, FRAMES, BANDS)
    assert batch.keys() == {"speech", "feats"}  # without lengths: all are whole
    starts(batch)


def test_every_place_is_drawn_and_no_other() -> None:
    collate = SegmentCollate(HOP, FRAMES, train=True)
    np.random.seed(0)
    for missing, last in ((0, 5), (1, 4)):  # a frame that lacks samples is no part of a segment
        drawn = [starts(collate([("u", utterance(10, missing))])[1])[0] for _ in range(300)]
        assert sorted(set(drawn)) == list(range(last + 1))


def test_short_utterances_are_whole_and_padded() -> None:
    collate = SegmentCollate(HOP, FRAMES, train=True)
    _, batch = collate([("long", utterance()), ("short", utterance(3, missing=2)), ("exact", utterance(FRAMES))])
    assert batch["speech_lengths"].tolist() == [20, 10, 20] and batch["feats_lengths"].tolist() == [5, 3, 5]
    assert batch["speech"][1, 10:].abs().sum() == 0 and batch["feats"][1, 3:].abs().sum() == 0
    for part in ([("short", utterance(3, missing=2))], [("alike", utterance(3)), ("short", utterance(3, missing=2))]):
        assert collate(part)[1]["speech_lengths"].tolist()[-1] == 10
    assert "speech_lengths" not in collate([("one", utterance(3)), ("other", utterance(3))])[1]


def test_validation_segments_stay_the_same() -> None:
    collate = SegmentCollate(HOP, FRAMES, train=False)
    examples = [(f"u{i}", utterance()) for i in range(8)]
    first = starts(collate(examples)[1])
    np.random.seed(99)
    assert starts(collate(examples)[1]) == first
    assert starts(collate(examples[::-1])[1]) == first[::-1]  # whatever the batch
    assert len(set(first)) > 1


def test_dequantisation_noise_stays_within_a_step() -> None:
    data = dict(speech=np.full(40 * HOP, 0.1, np.float32), feats=np.zeros((40, BANDS), np.float32))
    plain = SegmentCollate(HOP, None, train=True)([("u", data)])[1]["speech"]
    noisy = SegmentCollate(HOP, None, train=True, dequantize=True)([("u", data), ("v", data)])[1]["speech"]
    error = noisy - plain
    assert noisy.dtype == torch.float32 and error.shape == (2, 40 * HOP)
    assert 0.45 * QUANTISATION_STEP < error.abs().max() < 0.51 * QUANTISATION_STEP
    assert error.abs().mean() == pytest.approx(0.25 * QUANTISATION_STEP, rel=0.1) and error.unique().numel() > 100
    assert not torch.equal(*error)  # each of its own
    kept = SegmentCollate(HOP, None, train=False, dequantize=True)([("u", data)])[1]["speech"]
    assert torch.equal(kept, plain)  # validation is of the audio as it is


def test_a_draw_decides_alone() -> None:
    def cut(*draw: int, uid: str = "u") -> bytes:
        collate = SegmentCollate(HOP, FRAMES, train=True, dequantize=True)
        return collate([(uid, {**utterance(400), DRAW: np.array(draw)})])[1]["speech"].numpy().tobytes()

    np.random.seed(0)
    first = cut(0, 1, 2)
    np.random.seed(1)
    assert cut(0, 1, 2) == first
    others = [cut(0, 1, 3), cut(0, 2, 2), cut(1, 1, 2), cut(0, 1, 2, uid="v")]
    assert len({first, *others}) == 5


def test_whole_utterances() -> None:
    _, batch = SegmentCollate(HOP, None, train=False)([("long", utterance(40, missing=1)), ("short", utterance(3))])
    assert batch["feats_lengths"].tolist() == [40, 3] and batch["speech_lengths"].tolist() == [159, 12]


def test_check_names_the_utterance_and_both_numbers() -> None:
    check = CheckPair(HOP, BANDS)
    assert check("fine", quiet(missing=HOP)) is not None
    bad = {
        "utt7: the audio has a peak of 12345, .* 16-bit": dict(quiet(), speech=np.full(3 * HOP, 12345, np.float32)),
        "utt7.*13 samples.*3 frames": dict(quiet(), speech=np.zeros(13, np.float32)),
        r"utt7.*\(3, 2\).*3": dict(quiet(), feats=np.zeros((3, 2), np.float32)),
        r"utt7.*\(12, 2\)": dict(quiet(), speech=np.zeros((12, 2), np.float32)),
        "utt7: the audio is of type int16": dict(quiet(), speech=np.zeros(3 * HOP, np.int16)),
        "utt7: feats holds 9 non-finite": dict(quiet(), feats=np.full((3, 3), np.nan, np.float32)),
    }
    bad["utt7.*13 samples.*3 frames"]["speech"] = np.zeros(3 * HOP + 1, np.float32)
    for message, data in bad.items():
        with pytest.raises(ValueError, match=message):
            check("utt7", data)
