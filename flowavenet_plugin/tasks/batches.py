"""The batches of an epoch: drawn for all processes together, then dealt out: any number of them learns the same."""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from espnet2.iterators.abs_iter_factory import AbsIterFactory
from espnet2.samplers.build_batch_sampler import build_batch_sampler
from espnet2.tasks.abs_task import IteratorOptions
from espnet2.train.distributed_utils import get_num_nodes, get_world_size
from torch.utils.data import DataLoader, Dataset

from flowavenet_plugin.data.scp import read_scp
from flowavenet_plugin.tasks.segments import DRAW, Example

#: An utterance, and what its random numbers are drawn from: seed, epoch and iteration.
Key = tuple[str, tuple[int, int, int]]


class Draws:
    """An endless row of batches of all processes: one pass over the set after the other, cut into epochs.

    Example:
        >>> draws = Draws(list("abcdef"), [["a", "b"], ["c", "d"], ["e", "f"]], seed=0, shuffle=True, anew=True)
        >>> [sorted(utterance for batch in draws.epoch(number) for utterance in batch) for number in (1, 2)]
        [['a', 'b', 'c', 'd', 'e', 'f'], ['a', 'b', 'c', 'd', 'e', 'f']]
        >>> draws.epoch(1) == draws.epoch(2)
        False
    """

    def __init__(
        self,
        utterances: Sequence[str],
        batches: Sequence[Sequence[str]],
        seed: int,
        shuffle: bool,
        anew: bool,
        per_epoch: int | None = None,
    ) -> None:
        """Keep what is drawn from.

        Args:
            utterances: All of the set.
            batches: Its batches as they stand in the list.
            seed: Of the training.
            shuffle: Draw the order of the batches for each pass.
            anew: Draw the batches themselves, too: each pass is a new order of all utterances, cut into batches of
                these sizes. What drops out, if the batches leave utterances out, is then drawn anew as well.
            per_epoch: Batches of an epoch; None: a pass.
        """
        self.utterances = list(utterances)
        self.batches = [list(batch) for batch in batches]
        self.seed = seed
        self.shuffle = shuffle
        self.anew = anew
        self.per_epoch = per_epoch or len(self.batches)

    def epoch(self, number: int) -> list[list[str]]:
        """Return the batches of an epoch, counted from 1; a function of the number alone, so that runs can go on."""
        first = (number - 1) * self.per_epoch
        start = first // len(self.batches)
        stop = -(-(first + self.per_epoch) // len(self.batches))
        row = [batch for turn in range(start, stop) for batch in self._pass(turn)]
        offset = first - start * len(self.batches)
        return row[offset : offset + self.per_epoch]

    def _pass(self, number: int) -> list[list[str]]:
        if not self.shuffle:
            return self.batches
        generator = np.random.default_rng([self.seed, number])
        if not self.anew:
            return [self.batches[place] for place in generator.permutation(len(self.batches))]
        order = [self.utterances[place] for place in generator.permutation(len(self.utterances))]
        ends = np.cumsum([len(batch) for batch in self.batches]).tolist()
        return [order[end - len(batch) : end] for batch, end in zip(self.batches, ends, strict=True)]


class DrawnUtterances(Dataset):
    """A dataset whose utterances are asked for by id and draw; the draw goes with the data to the collate function."""

    def __init__(self, dataset: Any) -> None:
        """Keep ESPnet2's dataset."""
        self.dataset = dataset

    def __getitem__(self, key: Key) -> Example:
        """Return the id, and the data with the draw."""
        utterance, draw = key
        uid, data = self.dataset[utterance]
        return uid, {**data, DRAW: np.array(draw)}


class DealtBatches(AbsIterFactory):
    """Give this process its part of every batch: what ESPnet2's trainer asks for the iterator of an epoch.

    All processes draw the same batches, and of each take every n-th utterance. Random numbers belong to the utterance
    in its iteration, not to the process or its workers: however many there are, the segments are the same.
    """

    def __init__(
        self,
        dataset: Any,
        draws: Draws,
        collate_fn: Callable[[Collection[Example]], Any],
        rank: int = 0,
        world_size: int = 1,
        **loader: Any,
    ) -> None:
        """Keep the settings.

        Args:
            dataset: Of utterances by id.
            draws: The batches of all processes.
            collate_fn: Makes a batch of examples.
            rank: This process.
            world_size: Number of processes.
            loader: More options of torch's DataLoader.
        """
        self.dataset = DrawnUtterances(dataset)
        self.draws = draws
        self.collate_fn = collate_fn
        self.rank = rank
        self.world_size = world_size
        self.loader = loader
        #: Of a validation set: the clips to synthesise now and then.
        self.samples: AbsIterFactory | None = None

    def __repr__(self) -> str:
        """Name the sizes, for logs."""
        sizes = [len(batch) for batch in self.draws.batches]
        parts = f"{len(sizes)} batches of {min(sizes)} to {max(sizes)} utterances"
        return f"{parts}, {self.draws.per_epoch} in an epoch, dealt to {self.world_size} process(es)"

    def build_iter(self, epoch: int, shuffle: bool | None = None) -> DataLoader:
        """Return the loader of an epoch, counted from 1; ``shuffle`` is ESPnet2's, and the task's settings decide."""
        parts = [batch[self.rank :: self.world_size] for batch in self.draws.epoch(epoch)]
        seed = self.draws.seed
        keys = [[(uid, (seed, epoch, number)) for uid in part] for number, part in enumerate(parts)]
        return DataLoader(
            self.dataset,
            batch_sampler=keys,  # a list will do
            collate_fn=self.collate_fn,
            worker_init_fn=partial(_seed_worker, (seed, epoch, self.rank)),
            **self.loader,
        )


def batches_of(args: argparse.Namespace, options: IteratorOptions, world_size: int) -> list[list[str]]:
    """Return the batches of a set, of all processes together.

    Args:
        args: Of the training.
        options: Of the set.
        world_size: Number of processes that share a batch.
    """
    categories = Path(options.data_path_and_name_and_type[0][0]).parent / "utt2category"
    sampler = build_batch_sampler(
        type=options.batch_type,
        shape_files=options.shape_files,
        fold_lengths=args.fold_length,
        batch_size=options.batch_size,
        batch_bins=options.batch_bins,
        sort_in_batch=args.sort_in_batch,
        sort_batch=args.sort_batch,
        drop_last=args.drop_last_iter and options.train,  # in validation every utterance counts
        min_batch_size=args.min_batch_size,  # not ESPnet2's, the number of processes: batches don't depend on it
        utt2category_file=str(categories) if categories.exists() else None,
    )
    return [list(batch) for batch in sampler][: options.num_batches]


def deal(args: argparse.Namespace, options: IteratorOptions, dataset: Any) -> DealtBatches:
    """Return what gives an epoch's batches of a set: of a training set shuffled, of others always the same.

    Args:
        args: Of the training.
        options: Of the set.
        dataset: ESPnet2's, of utterances by id.
    """
    rank, world_size = 0, 1
    if options.distributed:
        rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    batches = batches_of(args, options, world_size)
    # With drop_last_iter the batches leave some out.
    every = list(read_scp(options.shape_files[0])) if options.train else [uid for batch in batches for uid in batch]
    draws = Draws(every, batches, args.seed, options.train, args.shuffle_within_batch, options.num_iters_per_epoch)
    # In a process that was spawned for its GPU workers would be spawned, too: each would import all, in every epoch.
    context = "fork" if args.num_workers > 0 else None
    loader = dict(num_workers=args.num_workers, pin_memory=args.ngpu > 0, multiprocessing_context=context)
    return DealtBatches(dataset, draws, options.collate_fn, rank, world_size, **loader)


def check_shares(batches: Sequence[Sequence[str]], world_size: int, which: str, shape_file: str) -> None:
    """Check that each process gets something of every batch.

    Args:
        batches: Of all processes.
        world_size: Number of processes.
        which: "training" or "validation".
        shape_file: That names the utterances.

    Raises:
        ValueError: If a set or batch is too small.
    """
    count, smallest = sum(map(len, batches)), min(map(len, batches))
    fewer = f"or train in fewer processes (--ngpu, --num_nodes; now {world_size})"
    if count < world_size:
        raise ValueError(
            f"the {which} set has {count} utterance(s) ({shape_file}), fewer than the {world_size} processes, and each "
            f"needs one: take a larger set, {fewer}"
        )
    if smallest < world_size:
        option = "--batch_size" if which == "training" else "--valid_batch_size (or --batch_size without it)"
        option += " (--batch_bins, --min_batch_size for batches by length)"
        raise ValueError(
            f"a batch of the {which} set ({shape_file}) has {smallest} utterance(s), fewer than the {world_size} "
            f"processes that share it: make {option} at least {world_size}, {fewer}"
        )


def processes_of(args: argparse.Namespace) -> int:
    """Return the number of processes of a training, on all machines, before they are started."""
    if args.multiprocessing_distributed:  # these options count machines then
        return max(args.ngpu, 1) * get_num_nodes(args.dist_world_size, args.dist_launcher)
    return get_world_size(args.dist_world_size, args.dist_launcher)


def seed_all(*entropy: int) -> None:
    """Seed all global generators from these numbers, such that other numbers give other draws."""
    state = np.random.SeedSequence(entropy).generate_state(3)
    random.seed(int(state[0]))
    np.random.seed(state[1])
    torch.manual_seed(int(state[2]))


def _seed_worker(entropy: tuple[int, ...], worker: int) -> None:
    seed_all(*entropy, worker)
