"""ESPnet2's trainer, made safe against kills and values that aren't finite, and more telling."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from espnet2.train.distributed_utils import DistributedOption
from espnet2.train.reporter import Reporter, SubReporter, aggregate, to_reported_value
from espnet2.train.trainer import Trainer, TrainerOptions
from espnet2.utils.build_dataclass import build_dataclass
from torch import nn

from flowavenet_plugin.tasks.averaging import WeightAverage
from flowavenet_plugin.tasks.batches import DealtBatches, seed_all
from flowavenet_plugin.tasks.best import BestAverages, averages_of_the_best, take_best_averages
from flowavenet_plugin.tasks.going_on import Hyper, hyper_parameters, take_up
from flowavenet_plugin.tasks.options import plain_options
from flowavenet_plugin.tasks.refusals import EMA_CRITERION
from flowavenet_plugin.tasks.samples import show_samples
from flowavenet_plugin.tasks.saving import CHECKPOINT, whole_files_only
from flowavenet_plugin.tasks.schedule import BudgetHalving
from flowavenet_plugin.tasks.stopped_epoch import EpochUnderWay, put_in_order, restore_random_states
from flowavenet_plugin.tasks.stopping import Batches, StopAsked, end_stopped
from flowavenet_plugin.tasks.watch import WatchedBatches


@dataclasses.dataclass
class VocoderTrainerOptions(TrainerOptions):
    """ESPnet2's options and ours; :meth:`VocoderTrainer.add_arguments` says what they mean."""

    max_skipped: int
    lr_halvings: Sequence[str | float]
    ema_decay: float
    sample_interval: int
    #: Made by the trainer from ``ema_decay`` and ``best_model_criterion``; no options.
    average: ClassVar[WeightAverage | None] = None
    best_averages: ClassVar[BestAverages | None] = None
    #: All options of the training, for its checkpoints.
    record: ClassVar[dict[str, Any]] = {}
    #: What the options made of the optimisers.
    hyper: ClassVar[Hyper] = []
    #: The middle of an epoch, where the run was stopped before.
    stopped: ClassVar[dict[str, Any] | None] = None
    #: The epoch of now.
    under_way: ClassVar[EpochUnderWay | None] = None


class VocoderTrainer(Trainer):
    """ESPnet2's trainer; the training loop itself is left to it."""

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add the options."""
        group = parser.add_argument_group("Vocoder trainer related")
        group.add_argument(
            "--max_skipped",
            type=int,
            default=20,
            help="End with an error after so many updates in a row that had to be skipped, since the loss or its "
            "gradient was not finite",
        )
        group.add_argument(
            "--lr_halvings",
            nargs="*",
            default=[],
            help="Parts of the training budget (max_epoch) after which the learning rate is halved, for instance "
            "2/7 4/7 6/7, as in the paper. Not together with --scheduler",
        )
        group.add_argument(
            "--ema_decay",
            type=float,
            default=0.0,
            help="Keep an exponential moving average of the weights with this decay, for instance 0.999, in ema.pth; "
            "its loss is reported as ema_loss. 0: no",
        )
        group.add_argument(
            "--sample_interval",
            type=int,
            default=10,
            help="Epochs between samples of validation utterances: pictures in images/, pictures and sound in "
            "tensorboard. 0: no samples",
        )
        group.add_argument("--num_samples", type=int, default=2, help="Validation utterances to sample")

    @classmethod
    def build_options(cls, args: argparse.Namespace) -> TrainerOptions:
        """Collect the options."""
        options = build_dataclass(VocoderTrainerOptions, args)
        options.record = plain_options(args)
        return options

    @staticmethod
    def resume(
        checkpoint: str | Path,
        model: nn.Module,
        reporter: Reporter,
        optimizers: Sequence[torch.optim.Optimizer],
        schedulers: Sequence[Any],
        scaler: Any,
        **kwargs: Any,
    ) -> None:
        """Load a checkpoint as ESPnet2 does, but for what the options of now say of the optimisers."""
        now = hyper_parameters(optimizers)
        others = [None if isinstance(scheduler, BudgetHalving) else scheduler for scheduler in schedulers]
        Trainer.resume(checkpoint, model, reporter, optimizers, others, scaler, **kwargs)
        take_up(optimizers, schedulers, now, reporter.get_epoch())

    @classmethod
    def run(
        cls,
        optimizers: Sequence[torch.optim.Optimizer],
        schedulers: Sequence[Any],
        trainer_options: Any,
        distributed_option: DistributedOption,
        valid_iter_factory: DealtBatches,
        **kwargs: Any,
    ) -> None:
        """Train. What is sampled comes with the validation set: ESPnet2 has nothing to draw without matplotlib.

        Raises:
            ValueError: If an option is out of range.
            RuntimeError: If too many updates in a row had to be skipped.
            SystemExit: If this process was asked to stop, when all is saved.
        """
        options = trainer_options
        schedulers = _with_halvings(optimizers, schedulers, options)
        if options.ema_decay != 0:
            options.average = WeightAverage(optimizers[0], options.ema_decay)
        options.hyper = hyper_parameters(optimizers)
        checkpoint = Path(options.output_dir) / CHECKPOINT
        take_best_averages(options, checkpoint if options.resume and checkpoint.exists() else None)
        with whole_files_only(options.record), averages_of_the_best(options.best_averages):
            options.stopped = put_in_order(options, _is_first(distributed_option))
            try:
                super().run(
                    optimizers=optimizers,
                    schedulers=schedulers,
                    trainer_options=options,
                    distributed_option=distributed_option,
                    valid_iter_factory=valid_iter_factory,
                    plot_attention_iter_factory=valid_iter_factory.samples,
                    **{name: value for name, value in kwargs.items() if name != "plot_attention_iter_factory"},
                )
            except StopAsked as stop:
                if _is_first(distributed_option) and options.under_way.counts:
                    options.under_way.save(Path(options.output_dir), options.record)
                end_stopped(stop, distributed_option.distributed)

    @classmethod
    def train_one_epoch(
        cls,
        model: nn.Module,
        iterator: Iterable,
        optimizers: Sequence[torch.optim.Optimizer],
        schedulers: Sequence[Any],
        scaler: Any,
        reporter: SubReporter,
        options: Any,
        distributed_option: DistributedOption,
        **kwargs: Any,
    ) -> bool:
        """Train one epoch and watch it; arguments and result as in ESPnet2."""
        # ESPnet2 gives all processes the same random numbers.
        seed_all(options.seed, reporter.get_epoch(), distributed_option.dist_rank or 0)
        for optimizer in optimizers:
            # With accum_grad, gradients of an epoch's odd last iterations would count in the next one, but are lost in
            # a resumed run.
            optimizer.zero_grad()
        options.under_way = EpochUnderWay(model, optimizers, schedulers, scaler, reporter)
        watched = _start_epoch(iterator, options, distributed_option)
        try:
            invalid = super().train_one_epoch(
                model=model,
                iterator=watched,
                optimizers=optimizers,
                schedulers=schedulers,
                scaler=scaler,
                reporter=reporter,
                options=options,
                distributed_option=distributed_option,
                **kwargs,
            )
        finally:
            watched.batches.close()
        if not distributed_option.distributed:  # else there is no stop before the next epoch
            options.under_way.note(watched.counts(), world_size=1)
        watched.close()
        return invalid and watched.updates == 0

    @classmethod
    def validate_one_epoch(
        cls,
        model: nn.Module,
        iterator: Iterable,
        reporter: SubReporter,
        options: Any,
        distributed_option: DistributedOption,
    ) -> None:
        """Validate, and once more with the averaged weights where there are some, which are saved."""
        with contextlib.closing(Batches(iterator, may_stop=not distributed_option.distributed)) as batches:
            super().validate_one_epoch(model, batches, reporter, options, distributed_option)
        if options.average is None:
            return
        averaged = SubReporter("valid", reporter.get_epoch(), 0)
        with (
            options.average.applied(),
            contextlib.closing(Batches(iterator, may_stop=not distributed_option.distributed)) as batches,
        ):
            super().validate_one_epoch(model, batches, averaged, options, distributed_option)
            loss = aggregate(averaged.stats["loss"])
            if _is_first(distributed_option):
                weights = getattr(model, "module", model).state_dict()
                torch.save(weights, Path(options.output_dir) / "ema.pth")
                if options.best_averages is not None:
                    options.best_averages.keep(reporter.get_epoch(), float(loss), weights)
        reporter.stats[EMA_CRITERION[1]] = [to_reported_value(loss)]

    @classmethod
    def plot_attention(
        cls,
        model: nn.Module,
        output_dir: Path | None,
        summary_writer: Any,
        iterator: Iterable,
        reporter: SubReporter,
        options: Any,
    ) -> None:
        """Sample fixed utterances: what ESPnet2 calls on the first process, after validation, to draw attention."""
        epoch = reporter.get_epoch()
        if epoch % options.sample_interval == 0:
            model.eval()
            images = Path(options.output_dir) / "images" if options.use_matplotlib else None
            with contextlib.closing(Batches(iterator)) as batches:
                show_samples(model.vocoder, batches, epoch, images, summary_writer)


def _is_first(distributed_option: DistributedOption) -> bool:
    return not distributed_option.distributed or distributed_option.dist_rank == 0


def _start_epoch(
    iterator: Iterable, options: VocoderTrainerOptions, distributed_option: DistributedOption
) -> WatchedBatches:
    """Return the batches of an epoch, or the rest of them where the run was stopped in it."""
    distributed, epoch = distributed_option.distributed, options.under_way
    rank, world_size = (distributed_option.dist_rank, distributed_option.dist_world_size) if distributed else (0, 1)
    stopped, options.stopped = options.stopped, None
    counts = None
    if stopped is not None and stopped["epoch"] == epoch.reporter.get_epoch():
        counts = epoch.restore(stopped)
        take_up(epoch.optimizers, epoch.schedulers, options.hyper, stopped["epoch"] - 1)
    watched = WatchedBatches(Batches(iterator), epoch.model, epoch.optimizers[0], epoch.reporter, options, world_size)
    watched.when_stopped(lambda counts: epoch.note(counts, world_size))
    if counts is not None:
        watched.go_on(counts, lambda: restore_random_states(stopped, rank, world_size))
    return watched


def _with_halvings(
    optimizers: Sequence[torch.optim.Optimizer], schedulers: Sequence[Any], options: VocoderTrainerOptions
) -> list[Any]:
    if not options.lr_halvings:
        return list(schedulers)
    schedulers = [BudgetHalving(optimizer, options.lr_halvings, options.max_epoch) for optimizer in optimizers]
    logging.info(f"The learning rate is halved after {', '.join(map(str, options.lr_halvings))} of the epochs")
    return schedulers
