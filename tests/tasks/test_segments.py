"""Segments: wav and frames cut together, anew each epoch, reproducible, different in every worker."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from espnet2.iterators.sequence_iter_factory import SequenceIterFactory

from flowavenet_plugin.tasks.segments import CheckPair, SegmentCollate

HOP, BANDS, FRAMES = 4, 3, 5


def utterance(frames: int = 40, missing: int = 0) -> dict[str, np.ndarray]:
    """Return audio whose samples count up, and frames that hold their own number."""
    samples = frames * HOP - missing
    feats = np.repeat(np.arange(frames, dtype=np.float32)[:, None], BANDS, axis=1)
    return dict(speech=np.arange(samples, dtype=np.float32), feats=feats)


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


class Corpus(torch.utils.data.Dataset):
    """Utterances by id."""

    def __getitem__(self, uid: str) -> tuple[str, dict[str, np.ndarray]]:
        return uid, utterance(400)


def epoch(number: int, seed: int = 0, num_workers: int = 2) -> list[int]:
    """Return the starts of an epoch through ESPnet2's own iterator."""
    batches = [[f"u{i}", f"u{i + 1}"] for i in range(0, 16, 2)]
    factory = SequenceIterFactory(
        Corpus(), batches, seed=seed, num_workers=num_workers, collate_fn=SegmentCollate(HOP, FRAMES, train=True)
    )
    np.random.seed(seed + number)  # as ESPnet2's trainer does at the start of an epoch; counts where there's no worker
    return [start for _, batch in factory.build_iter(number) for start in starts(batch)]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_anew_each_epoch_and_reproducible_by_seed(num_workers: int) -> None:
    first = epoch(1, num_workers=num_workers)
    assert epoch(1, num_workers=num_workers) == first
    assert epoch(2, num_workers=num_workers) != first
    assert epoch(1, seed=5, num_workers=num_workers) != first


def test_workers_draw_different_places() -> None:
    one, two = epoch(1)[0:2], epoch(1)[2:4]  # the first batches of the two workers
    assert one != two


def test_processes_draw_different_places() -> None:
    batches = [[f"u{i}", f"u{i + 1}"] for i in range(0, 16, 2)]
    drawn = []
    for rank in range(2):  # what ESPnet2 gives each process: its part of every batch, and the same seed
        part = [batch[rank::2] for batch in batches]
        collate = SegmentCollate(HOP, FRAMES, train=True)
        factory = SequenceIterFactory(Corpus(), part, seed=0, num_workers=2, collate_fn=collate)
        drawn.append([start for _, batch in factory.build_iter(1) for start in starts(batch)])
    assert sum(one == two for one, two in zip(*drawn, strict=True)) <= 2  # of 8 pairs, each of 396 places


def test_check_names_the_utterance_and_both_numbers() -> None:
    check = CheckPair(HOP, BANDS)
    assert check("fine", utterance(3, missing=HOP)) is not None
    bad = {
        "utt7.*13 samples.*3 frames": dict(utterance(3), speech=np.zeros(13, np.float32)),
        r"utt7.*\(3, 2\).*3": dict(utterance(3), feats=np.zeros((3, 2), np.float32)),
        r"utt7.*\(12, 2\)": dict(utterance(3), speech=np.zeros((12, 2), np.float32)),
        "utt7: feats holds 9 non-finite": dict(utterance(3), feats=np.full((3, 3), np.nan, np.float32)),
    }
    bad["utt7.*13 samples.*3 frames"]["speech"] = np.zeros(3 * HOP + 1, np.float32)
    for message, data in bad.items():
        with pytest.raises(ValueError, match=message):
            check("utt7", data)
