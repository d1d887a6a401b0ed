"""The batches of an epoch: drawn for all processes, random, each utterance once, whatever the number of processes."""

from __future__ import annotations

import argparse
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from espnet2.tasks.abs_task import IteratorOptions

import tiny_corpus
from flowavenet_plugin.bin.vocoder_train import get_parser
from flowavenet_plugin.tasks.batches import DealtBatches, Draws, batches_of, check_shares, seed_all
from flowavenet_plugin.tasks.segments import DRAW, SegmentCollate
from flowavenet_plugin.tasks.vocoder import VocoderTask

BATCH = 8


class Corpus(torch.utils.data.Dataset):
    """Long utterances by id."""

    def __getitem__(self, uid: str) -> tuple[str, dict[str, np.ndarray]]:
        samples = np.linspace(-0.01, 0.01, 4000, dtype=np.float32)
        return uid, dict(speech=samples, feats=np.repeat(samples[::4, None], 3, axis=1))


def options(folder: Path, count: int, train: bool = True, **changes: object) -> IteratorOptions:
    """Return a set's options as ESPnet2 collects them."""
    folder.mkdir(exist_ok=True)
    (folder / "shapes").write_text("".join(f"u{number:04d} 4000\n" for number in range(count)))
    values = dict(
        preprocess_fn=None,
        collate_fn=SegmentCollate(4, 5, train, dequantize=True),
        data_path_and_name_and_type=[(str(folder / "wav.scp"), "speech", "sound")],
        shape_files=[str(folder / "shapes")],
        batch_size=BATCH,
        batch_bins=0,
        batch_type="unsorted",
        max_cache_size=0.0,
        max_cache_fd=0,
        allow_multi_rates=False,
        distributed=False,
        num_batches=None,
        num_iters_per_epoch=None,
        train=train,
    )
    return IteratorOptions(**{**values, **changes})


@pytest.fixture
def ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ranks:
    """Return a maker of the factories of all processes."""
    return Ranks(tmp_path, monkeypatch)


class Ranks:
    """Makes, by the task, what each of several processes would have."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
        monkeypatch.setattr(VocoderTask, "build_dataset", classmethod(lambda cls, *args: Corpus()))

    def make(self, world_size: int, count: int, changes: dict | None = None, **args: object) -> list[DealtBatches]:
        """Return the factories of a set of ``count`` utterances."""
        values = dict(seed=3, shuffle_within_batch=True, num_workers=0, ngpu=0)
        parsed = argparse.Namespace(**{**vars(get_parser().parse_args([])), **values, **args})
        made = []
        for rank in range(world_size):
            self.monkeypatch.setattr(torch.distributed, "get_rank", lambda rank=rank: rank)
            self.monkeypatch.setattr(torch.distributed, "get_world_size", lambda: world_size)
            its = options(self.folder, count, **{**(changes or {}), "distributed": world_size > 1})
            made.append(VocoderTask.build_sequence_iter_factory(parsed, its, "train"))
        return made


def epoch(factories: list[DealtBatches], number: int) -> list[list[list[str]]]:
    """Return an epoch's batches: by iteration and process, the ids."""
    parts = [[[uid for uid, _ in keys] for keys in f.build_iter(number).batch_sampler] for f in factories]
    return [list(part) for part in zip(*parts, strict=True)]


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_who_meets_in_a_batch_is_a_random_draw(ranks: Ranks, world_size: int) -> None:
    count = 800
    factories = ranks.make(world_size, count)
    meetings: Counter = Counter()
    for number in (1, 2):
        batches = [sorted(itertools.chain(*parts)) for parts in epoch(factories, number)]
        assert sorted(itertools.chain(*batches)) == [f"u{n:04d}" for n in range(count)]  # each once
        for batch in batches:
            meetings.update(itertools.combinations([int(uid[1:]) for uid in batch], 2))
    # Of two random draws, 2 * 2800 pairs of 319,600, about 2800^2 / 319,600 = 24.5 are the same: 5 standard deviations.
    again = sum(times == 2 for times in meetings.values())
    assert abs(again - 24.5) < 5 * 24.5**0.5, again
    # And of the 799 pairs of neighbours as many meet as of others: 14 in both epochs.
    neighbours = sum(times for (a, b), times in meetings.items() if b - a == 1)
    assert neighbours < 14 + 5 * 14**0.5, neighbours


@pytest.mark.parametrize("world_size", [2, 4, 8])
@pytest.mark.parametrize("count, changes", [(83, {}), (83, dict(num_iters_per_epoch=4)), (83, dict(train=False))])
@pytest.mark.parametrize("anew", [True, False])
def test_processes_share_what_one_would_have(
    ranks: Ranks, world_size: int, count: int, changes: dict, anew: bool
) -> None:
    one = ranks.make(1, count, changes, shuffle_within_batch=anew)
    several = ranks.make(world_size, count, changes, shuffle_within_batch=anew)
    for number in (1, 2, 3):
        for (whole,), parts in zip(epoch(one, number), epoch(several, number), strict=True):
            assert all(parts) and max(map(len, parts)) - min(map(len, parts)) <= 1
            assert sorted(itertools.chain(*parts)) == sorted(whole)


def test_passes_go_on_over_epochs_of_any_length(ranks: Ranks) -> None:
    whole = ranks.make(1, 40)  # 5 batches
    row = [batch for number in range(1, 7) for batch in epoch(whole, number)]
    for length in (1, 3, 5, 7):
        parts = ranks.make(1, 40, dict(num_iters_per_epoch=length))
        cut = [batch for number in range(1, 30 // length + 1) for batch in epoch(parts, number)]
        assert cut == row[: len(cut)] and len(cut) == 30 // length * length


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_validation_is_each_utterance_once_and_always_the_same(ranks: Ranks, world_size: int) -> None:
    factories = ranks.make(world_size, 250, dict(train=False), drop_last_iter=True)
    first = epoch(factories, 1)
    uids = [uid for parts in first for part in parts for uid in part]
    assert sorted(uids) == [f"u{n:04d}" for n in range(250)]
    assert epoch(factories, 2) == first
    assert len({len(factory.build_iter(1)) for factory in factories}) == 1  # ESPnet2 stops at the shortest


def test_what_drops_out_is_drawn_anew(ranks: Ranks) -> None:
    factory = ranks.make(1, 83, drop_last_iter=True)
    seen = [{uid for (batch,) in epoch(factory, number) for uid in batch} for number in (1, 2)]
    assert [len(uids) for uids in seen] == [80, 80] and seen[0] != seen[1]


def test_segments_and_noise_belong_to_the_utterance_in_its_iteration(ranks: Ranks) -> None:
    def sounds(factories: list[DealtBatches], number: int) -> dict[tuple[int, str], bytes]:
        found = {}
        for factory in factories:
            for place, (uids, batch) in enumerate(factory.build_iter(number)):
                found |= {(place, uid): wav.numpy().tobytes() for uid, wav in zip(uids, batch["speech"], strict=True)}
        return found

    first = sounds(ranks.make(1, 48), 1)
    assert len(set(first.values())) == 48  # no two alike: of 996 places, and noise
    assert sounds(ranks.make(4, 48), 1) == first
    assert sounds(ranks.make(2, 48, num_workers=2), 1) == first
    assert not set(sounds(ranks.make(1, 48), 2).values()) & set(first.values())
    assert not set(sounds(ranks.make(1, 48, seed=4), 1).values()) & set(first.values())


class Dice(torch.utils.data.Dataset):
    """Draws from all global generators, as a preprocess function of a third party may."""

    def __getitem__(self, uid: str) -> tuple[str, dict[str, np.ndarray]]:
        import random

        return uid, dict(dice=np.array([random.random(), np.random.random(), torch.rand(()).item()]))


def test_no_two_workers_draw_the_same() -> None:
    def rolls(rank: int, number: int) -> set[float]:
        draws = Draws(list("abcdefgh"), [["a", "b", "c", "d"], ["e", "f", "g", "h"]], 0, shuffle=False, anew=False)
        factory = DealtBatches(Dice(), draws, lambda examples: [d["dice"].tolist() for _, d in examples], rank, 2)
        factory.loader = dict(num_workers=2)
        return {value for batch in factory.build_iter(number) for dice in batch for value in dice}

    parts = [rolls(rank, number) for rank in (0, 1) for number in (1, 2)]
    assert all(len(part) == 4 * 3 for part in parts) and len(set().union(*parts)) == 4 * 4 * 3
    assert rolls(1, 2) - parts[3] == set()  # and it is reproducible


def test_a_process_draws_numbers_of_its_own() -> None:
    drawn = set()
    for entropy in ((0, 1, 0), (0, 1, 1), (0, 2, 0), (1, 0, 0), (1, 1, 0)):
        seed_all(*entropy)
        drawn |= {torch.rand(()).item(), np.random.random()}
    assert len(drawn) == 10


def test_the_draw_goes_with_the_data() -> None:
    draws = Draws(["a", "b"], [["a", "b"]], seed=7, shuffle=True, anew=True)
    factory = DealtBatches(Corpus(), draws, lambda examples: examples)
    ((example, _),) = factory.build_iter(3)
    assert example[1][DRAW].tolist() == [7, 3, 0]


def test_small_sets_and_batches_are_refused(tmp_path: Path) -> None:
    args = get_parser().parse_args([])
    with pytest.raises(ValueError, match=r"training set has 3 utterance.*shapes.*fewer than the 4 processes.*--ngpu"):
        check_shares(batches_of(args, options(tmp_path, 3), 4), 4, "training", str(tmp_path / "shapes"))
    with pytest.raises(ValueError, match=r"a batch of the validation set .*8 utter.*16 processes.*--valid_batch_size"):
        check_shares(batches_of(args, options(tmp_path, 64), 16), 16, "validation", str(tmp_path / "shapes"))
    check_shares(batches_of(args, options(tmp_path, 9), 8), 8, "training", str(tmp_path / "shapes"))


@pytest.mark.parametrize("which, words", [("train", "training set has 3"), ("valid", "validation set has 3")])
def test_nothing_is_written_for_a_small_set(tmp_path: Path, which: str, words: str) -> None:
    small, large = (tiny_corpus.make_corpus(tmp_path / name, n_utts=n) for name, n in (("small", 3), ("large", 4)))
    train, valid = (small, large) if which == "train" else (large, small)
    command = tiny_corpus.train_options(train, valid, tmp_path / "exp", batch_size=4)
    place = ["--dist_world_size", "4", "--dist_rank", "0", "--dist_backend", "gloo"]
    with pytest.raises(ValueError, match=words):
        VocoderTask.main(cmd=[*command, *place])
    assert not (tmp_path / "exp").exists()
