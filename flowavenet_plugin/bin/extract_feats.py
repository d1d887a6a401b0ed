"""Make features of recordings: wav.scp -> feats.ark, feats.scp, wav.scp, lengths and statistics, all fitting.

A result is complete when its ``.done`` is there. It is only replaced by another complete one, and a run with the same
recordings and settings leaves it as it is.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from espnet2.utils.nested_dict_action import NestedDictAction
from espnet2.utils.types import str2bool

from flowavenet_plugin.bin.extraction import Extraction
from flowavenet_plugin.data.audio import MIX
from flowavenet_plugin.data.recordings import read_recordings, segments_beside

#: Sampling rate in Hz of features that are made without telling one; ESPnet2's class has 16,000, its recipes 22,050.
DEFAULT_FS = 22050


def get_parser() -> argparse.ArgumentParser:
    """Options of this command."""
    parser = argparse.ArgumentParser(
        prog="extract_feats", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--wav_scp", type=Path, required=True, help="list of recordings")
    parser.add_argument(
        "--segments", type=Path, help="Kaldi's, which cut them into utterances (default: segments beside --wav_scp)"
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for the results")
    parser.add_argument("--feats_extract", default="fbank", help="fbank (ESPnet2) or original (FloWaveNet 2018)")
    parser.add_argument(
        "--feats_extract_conf", action=NestedDictAction, default={}, help="settings, e.g. fs=16000 (default: 22050)"
    )
    parser.add_argument("--train_config", type=Path, help="what will be trained on them, to be checked against them")
    parser.add_argument("--resample", type=str2bool, default=False, help="convert audio of another rate")
    parser.add_argument(
        "--channel", type=channel_or_mix, help="of recordings of several: 0 (left), 1 (right), ... or mix, their mean"
    )
    parser.add_argument(
        "--skip_bad_utts", type=str2bool, default=False, help="leave bad recordings out, listed in bad_utts"
    )
    parser.add_argument(
        "--merged_dir", type=Path, help="what merge_dump made of an earlier result: its feats.scp goes with that result"
    )
    parser.add_argument(
        "--log_level", default="INFO", choices=("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG"), help="verbosity"
    )
    return parser


def channel_or_mix(text: str) -> int | str:
    """Read the value of ``--channel``.

    Raises:
        argparse.ArgumentTypeError: If it is neither a channel's number, from 0, nor ``mix``.
    """
    if text == MIX:
        return text
    if not (text.isascii() and text.isdecimal()):
        raise argparse.ArgumentTypeError(f"a channel is a number from 0, or {MIX}, not '{text}'")
    return int(text)


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Make the folder, keep other processes out of it, and clear what a killed one left.

    Raises:
        ValueError: If another process is at work in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another process is writing to {folder}; wait until it has ended") from None
        for left in folder.glob(".*.tmp-*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield


def main(cmd: Sequence[str] | None = None) -> None:
    """Entry point; exits with 1 and one line on stderr when the input is bad."""
    args = get_parser().parse_args(cmd)
    logging.basicConfig(level=args.log_level, format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    try:
        run(args)
    except (ValueError, OSError) as error:
        sys.exit(f"extract_feats: error: {error}")


def check_train_config(path: Path, conf: dict[str, Any]) -> None:
    """Check a configuration of training against the settings of features, before an hour is spent on them.

    Raises:
        ValueError: If they don't fit; with file and both values.
        OSError: If it can't be read.
    """
    from flowavenet_plugin.data.settings import read_options
    from flowavenet_plugin.tasks.refusals import check_vocoder_conf

    config = read_options(path)
    try:
        check_vocoder_conf(config.get("vocoder", "flowavenet"), config.get("vocoder_conf") or {}, conf)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def run(args: argparse.Namespace) -> None:
    """Do what the options say."""
    import torch  # not at the top: --help and wrong options answer at once

    from flowavenet_plugin.data.features import build_feats_extract, check_bands, full_settings

    torch.set_num_threads(1)  # the recipe runs many of these side by side
    conf = full_settings(args.feats_extract, {"fs": DEFAULT_FS, **args.feats_extract_conf})
    check_bands(conf)
    if args.train_config is not None:
        check_train_config(args.train_config, conf)
    settings = {"feats_extract": args.feats_extract, "feats_extract_conf": conf}
    with only_process(args.output_dir):
        recordings = read_recordings(args.wav_scp, args.segments)
        if not recordings:
            raise ValueError(f"no utterances in {args.segments or segments_beside(args.wav_scp) or args.wav_scp}")
        job = Extraction(
            recordings,
            args.output_dir,
            settings,
            resample=args.resample,
            channel=args.channel,
            skip_bad_utts=args.skip_bad_utts,
            merged_dir=args.merged_dir,
        )
        if job.is_complete():
            logging.info(f"{args.output_dir} is complete, nothing to do")
            return
        job.run(build_feats_extract(args.feats_extract, conf))
    seconds = sum(job.samples.values()) / conf["fs"]
    logging.info(f"{len(job.samples)} utterances, {seconds:.1f} s of audio, {job.stats[0]} frames: {args.output_dir}")
    if job.untold:
        logging.warning(
            f"{job.untold} of {len(job.samples)} recordings are HDF5 files, which don't tell their rate: taken as "
            f"{conf['fs']} Hz"
        )
    if job.over:
        loudest = max(job.over, key=job.over.__getitem__)
        logging.warning(
            f"{len(job.over)} of {len(job.samples)} recordings go beyond full scale, which sound can't: the largest "
            f"peak is {job.over[loudest]:.3f}, of {loudest}"
        )
    if job.bad:
        logging.warning(f"{len(job.bad)} bad utterances were left out, see {args.output_dir / 'bad_utts'}")


if __name__ == "__main__":
    main()
