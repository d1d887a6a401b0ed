"""Vocoder training as an ESPnet2 task: its trainer, optimisers, schedulers, checkpoints and command line."""

from __future__ import annotations

import argparse
import contextlib
import copy
import logging
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
import yaml
from espnet2.iterators.abs_iter_factory import AbsIterFactory
from espnet2.tasks.abs_task import AbsTask, IteratorOptions
from espnet2.train.class_choices import ClassChoices
from espnet2.train.distributed_utils import DistributedOption
from espnet2.tts.feats_extract.abs_feats_extract import AbsFeatsExtract
from espnet2.utils.get_default_kwargs import get_default_kwargs
from espnet2.utils.types import str2bool, str_or_none
from torch import Tensor
from torch.multiprocessing.spawn import ProcessExitedException

from flowavenet_plugin.data.features import FEATS_EXTRACTORS, full_settings
from flowavenet_plugin.data.stats import read_stats
from flowavenet_plugin.flow.prediction import LinearPrediction
from flowavenet_plugin.tasks.batches import DealtBatches, batches_of, check_shares, deal, processes_of
from flowavenet_plugin.tasks.discriminators import Discriminators
from flowavenet_plugin.tasks.espnet_model import ESPnetVocoderModel
from flowavenet_plugin.tasks.folder_lock import HELD
from flowavenet_plugin.tasks.lists import check_lists
from flowavenet_plugin.tasks.options import convert_numbers, with_numbers
from flowavenet_plugin.tasks.prediction_start import start_prediction
from flowavenet_plugin.tasks.refusals import check_for_several, check_options, check_vocoder_conf
from flowavenet_plugin.tasks.samples import MAX_SECONDS
from flowavenet_plugin.tasks.segments import CheckPair, SegmentCollate
from flowavenet_plugin.tasks.starting_point import check_starting_point, starts_with
from flowavenet_plugin.tasks.starting_weights import weights_only_in_espnet2
from flowavenet_plugin.tasks.stopping import SIGNALS, leave_group, listening
from flowavenet_plugin.tasks.trained_on import check_same_among_processes, describe_set
from flowavenet_plugin.tasks.trainer import VocoderTrainer
from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder
from flowavenet_plugin.vocoder.loading import (
    PREFIX,
    check_keys,
    read_config,
    read_state_dict,
    unpacked,
    vocoder_from_config,
)
from flowavenet_plugin.vocoder.registry import VOCODERS

vocoder_choices = ClassChoices("vocoder", classes=VOCODERS, type_check=AbsVocoder, default="flowavenet")
# ClassChoices copies; sharing the dict makes an entry made on either side known to both.
vocoder_choices.classes = VOCODERS
feats_extract_choices = ClassChoices(
    "feats_extract", classes=FEATS_EXTRACTORS, type_check=AbsFeatsExtract, default="fbank"
)


class VocoderTask(AbsTask):
    """Train a vocoder on ``wav.scp`` (data name speech) and ``feats.scp`` (data name feats)."""

    num_optimizers: int = 1
    class_choices_list = [vocoder_choices, feats_extract_choices]
    trainer = VocoderTrainer

    @classmethod
    def add_task_arguments(cls, parser: argparse.ArgumentParser) -> None:
        """Add this task's options; ESPnet2's batching defaults that don't fit segments of one length are replaced."""
        group = parser.add_argument_group(description="Task related")
        group.add_argument(
            "--feats_stats",
            type=str_or_none,
            default=None,
            help="feats_stats.npz (count, sum, sum_square) of the training features, which are standardised by it. "
            "Mean and deviation become part of the checkpoint. Without it features are used as they are",
        )
        group.add_argument(
            "--segment_length",
            type=int,
            default=16000,
            help="Samples of a training segment, rounded down to whole frames",
        )
        group.add_argument(
            "--dequantize",
            type=str2bool,
            default=False,
            help="Add noise to the audio in training, uniform within a quantisation step of 16-bit audio",
        )
        group.add_argument(
            "--fit_prediction",
            type=int,
            default=300,
            help="Utterances of the training set that a linear prediction is fitted to, in closed form, before a new "
            "training, unless --init_param holds one; 0: it begins as what the mel tells",
        )
        for class_choices in cls.class_choices_list:
            class_choices.add_arguments(group)
        parser.set_defaults(batch_type="unsorted", num_att_plot=0)

    @classmethod
    def build_collate_fn(
        cls, args: argparse.Namespace, train: bool
    ) -> Callable[[Collection[tuple[str, dict[str, np.ndarray]]]], tuple[list[str], dict[str, Tensor]]]:
        """Return the function that cuts segments.

        Raises:
            ValueError: If a segment would be shorter than a frame.
        """
        hop_length = _feats_conf(args)["hop_length"]
        frames = args.segment_length // hop_length
        if frames < 1:
            raise ValueError(f"segment_length {args.segment_length} is less than a frame of {hop_length} samples")
        if args.collect_stats:  # counts whole utterances
            return SegmentCollate(hop_length, None, train=False)
        return SegmentCollate(hop_length, frames, train, getattr(args, "dequantize", False))

    @classmethod
    def build_preprocess_fn(
        cls, args: argparse.Namespace, train: bool
    ) -> Callable[[str, dict[str, np.ndarray]], dict[str, np.ndarray]] | None:
        """Return the function that checks each utterance."""
        conf = _feats_conf(args)
        return CheckPair(conf["hop_length"], conf["n_mels"])

    @classmethod
    def required_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        """Name the data that must be given."""
        return ("feats",) if inference else ("speech", "feats")

    @classmethod
    def optional_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        """Name the data that may be given."""
        return ()

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> ESPnetVocoderModel:
        """Build the model, and complete the options in ``args`` so that config.yaml alone rebuilds it.

        Raises:
            ValueError: If an option is unknown to the class it is for, or sizes don't fit each other.
        """
        args.feats_extract_conf = _feats_conf(args)
        vocoder_class = vocoder_choices.get_class(args.vocoder)
        args.vocoder_conf = {**_plain(get_default_kwargs(vocoder_class)), **args.vocoder_conf}
        vocoder = vocoder_from_config(vars(args))
        vocoder.set_features(args.feats_extract, args.feats_extract_conf)
        vocoder.for_training(Discriminators)
        if args.feats_stats is not None:
            _load_feats_stats(vocoder, args.feats_stats)
        return ESPnetVocoderModel(vocoder)

    @classmethod
    def check_required_command_args(cls, args: argparse.Namespace) -> None:
        """Check the command line before any process is started.

        Raises:
            ValueError: If there are fewer GPUs than asked for, options are given that this task can't follow, or a set
                can't be trained on.
        """
        convert_numbers(args)
        args.trained_on = {}
        super().check_required_command_args(args)
        if args.ngpu > (found := torch.cuda.device_count()):
            raise ValueError(
                f"--ngpu {args.ngpu} needs as many CUDA devices, but PyTorch sees {found}: look at nvidia-smi and "
                "CUDA_VISIBLE_DEVICES, or train on the CPU (--ngpu 0)"
            )
        check_options(args)
        check_vocoder_conf(args.vocoder, args.vocoder_conf, _feats_conf(args))
        if not args.dry_run:
            cls.check_sets(args)

    @classmethod
    def build_optimizers(cls, args: argparse.Namespace, model: torch.nn.Module) -> list[torch.optim.Optimizer]:
        """Build the optimiser; the last moment before ESPnet2 replaces the folder's config.yaml, so checks come here.

        Raises:
            ValueError: If processes have other sets; if the checkpoint to resume from, or the weights of
                ``--init_param``, don't fit the options; or if another training writes to the folder.
        """
        check_same_among_processes(args)
        if not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0:
            goes_on = check_starting_point(args, model)
            HELD.take(Path(args.output_dir))
            if not goes_on:  # other processes get the weights of this one
                cls._start_prediction(args, model)
        return super().build_optimizers(args, model)

    @classmethod
    def _start_prediction(cls, args: argparse.Namespace, model: torch.nn.Module) -> None:
        there = isinstance(getattr(model.vocoder, "prediction", None), LinearPrediction)
        wanted = there and args.fit_prediction > 0 and not (args.dry_run or args.collect_stats)
        if wanted and not starts_with(f"{PREFIX}prediction.", args, model):
            options = cls.build_iter_options(args, DistributedOption(distributed=False), "train")
            dataset = cls.build_dataset(args, options)
            start_prediction(args, model.vocoder, dataset, options.shape_files[0], _feats_conf(args)["n_fft"])

    @classmethod
    def main(cls, args: argparse.Namespace | None = None, cmd: Sequence[str] | None = None) -> None:
        """Train, in as many processes as there are to be on this machine; a signal to stop goes to all of them.

        Raises:
            SystemExit: If training was stopped, and saved: 128 and the number of the signal.
            RuntimeError: If a process was ended from outside; the message names it. The others have been ended, too.
        """
        args = cls.get_parser().parse_args(cmd) if args is None else args
        try:
            with listening(args, hand_on=True):
                super().main(args=args)
        except ProcessExitedException as error:
            if error.exit_code in {128 + number for number in SIGNALS}:
                sys.exit(error.exit_code)
            raise RuntimeError(
                f"process {error.error_index} of this machine's (counted from 0, process id {error.error_pid}) was "
                f"ended by {error.signal_name or f'exit status {error.exit_code}'}, and the others with it. If nobody "
                "did so by hand, the machine may have run out of memory. Started again, training goes on"
            ) from error

    @classmethod
    def get_default_config(cls) -> dict[str, Any]:
        """Return the configuration that ``--print_config`` prints, with numbers for texts that are numbers."""
        return with_numbers(super().get_default_config())

    @classmethod
    def main_worker(cls, args: argparse.Namespace) -> None:
        """Train in this process."""
        try:
            with listening(args), weights_only_in_espnet2():
                super().main_worker(args)
        except SystemExit:  # asked to stop, all is saved
            leave_group()
            raise
        finally:
            HELD.release()
        leave_group()

    @classmethod
    def check_sets(cls, args: argparse.Namespace) -> None:
        """Check the lists before ESPnet2 opens them: it would run commands in them, and fail late on broken files.

        ``args`` get ``trained_on``: what the sets are.

        Raises:
            ValueError: If lists don't fit each other, an archive is broken, or a set is too small for the processes.
        """
        world_size = processes_of(args)
        check_for_several(args, world_size)
        option = DistributedOption(distributed=world_size > 1)
        for mode, which in (("train", "training"), ("valid", "validation")):
            options = cls.build_iter_options(args, option, mode)
            check_lists(options.data_path_and_name_and_type, options.shape_files, _feats_conf(args)["n_mels"], which)
            if not args.collect_stats:
                check_shares(batches_of(args, options, world_size), world_size, which, options.shape_files[0])
                args.trained_on[mode] = describe_set(options.data_path_and_name_and_type, options.shape_files)

    @classmethod
    def build_model_from_file(
        cls,
        config_file: Path | str | None = None,
        model_file: Path | str | None = None,
        device: str = "cpu",
    ) -> tuple[ESPnetVocoderModel, argparse.Namespace]:
        """Load a trained model; unlike ESPnet2's own, keys must match and a file with code in it is refused.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If the weights don't fit the configuration, or no file is named.
        """
        if config_file is None and model_file is None:
            raise ValueError("give config_file or model_file")
        with contextlib.nullcontext() if config_file is not None else unpacked(Path(model_file)) as weights:
            config_file = weights.parent / "config.yaml" if config_file is None else config_file
            args = argparse.Namespace(**read_config(config_file))
        args.feats_stats = None  # the checkpoint holds mean and deviation
        model = cls.build_model(args)
        if model_file is not None:
            own = tuple(model.vocoder.training_only)
            found, expected = read_state_dict(model_file), model.vocoder.state_dict()
            # Packed models don't hold what only training has: it begins anew.
            missing = {key: value for key, value in expected.items() if key.startswith(own) and key not in found}
            check_keys(expected, found | missing, model_file, config_file)
            model.load_state_dict({PREFIX + key: value for key, value in (found | missing).items()})
        return model.to(device), args

    @classmethod
    def print_config(cls, file: TextIO | None = None) -> None:
        """Print the default configuration, to today's standard output and not that of the time of import."""
        super().print_config(sys.stdout if file is None else file)

    @classmethod
    def build_iter_options(
        cls, args: argparse.Namespace, distributed_option: DistributedOption, mode: str
    ) -> IteratorOptions:
        """Collect what a set's batches depend on."""
        options = super().build_iter_options(args, distributed_option, mode)
        if mode == "plot_att":  # utterances to sample: longer than a training segment
            conf = _feats_conf(args)
            frames = int(MAX_SECONDS * conf["fs"]) // conf["hop_length"]
            options.collate_fn = SegmentCollate(conf["hop_length"], frames, train=False)
            options.num_batches = args.num_samples
        return options

    @classmethod
    def build_iter_factory(
        cls, args: argparse.Namespace, distributed_option: DistributedOption, mode: str, kwargs: dict | None = None
    ) -> AbsIterFactory:
        """Build what gives an epoch's batches; with a validation set comes what is sampled of it."""
        factory = super().build_iter_factory(args, distributed_option, mode, kwargs)
        wanted = min(args.sample_interval, args.num_samples) > 0 and (args.use_matplotlib or args.use_tensorboard)
        if mode == "valid" and wanted:
            factory.samples = super().build_iter_factory(args, distributed_option, "plot_att")
        return factory

    @classmethod
    def build_sequence_iter_factory(
        cls, args: argparse.Namespace, iter_options: IteratorOptions, mode: str
    ) -> DealtBatches:
        """Build what gives an epoch's batches; unlike ESPnet2's it draws first and deals then."""
        dataset = cls.build_dataset(args, iter_options)
        logging.info(f"[{mode}] dataset:\n{dataset}")
        factory = deal(args, iter_options, dataset)
        logging.info(f"[{mode}] {factory}")
        return factory


def _feats_conf(args: argparse.Namespace) -> dict[str, Any]:
    """Return all settings of the features, defaults included."""
    return full_settings(args.feats_extract, args.feats_extract_conf)


def _plain(conf: dict[str, Any]) -> dict[str, Any]:
    """Return a copy that YAML writes and reads back the same (lists for tuples)."""
    return copy.deepcopy(yaml.safe_load(yaml.safe_dump(conf)))


def _load_feats_stats(vocoder: AbsVocoder, path: str) -> None:
    mean, std = read_stats(path)
    try:
        vocoder.set_feats_stats(torch.from_numpy(mean), torch.from_numpy(std))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    logging.info(f"features are standardised by {path}")
