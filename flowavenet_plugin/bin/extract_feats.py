"""Make features of recordings: wav.scp -> feats.ark, feats.scp, wav.scp, lengths and statistics, all fitting.

A result is complete when its ``.done`` is there. It is only replaced by another complete one, and a run with the same
recordings and settings leaves it as it is.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from espnet2.utils.nested_dict_action import NestedDictAction
from espnet2.utils.types import str2bool

from flowavenet_plugin.data.decoded import write_wav
from flowavenet_plugin.data.scp import ArkWriter, atomic_open, check_arks, read_audio, read_files, read_scp, write_scp
from flowavenet_plugin.data.stats import write_stats

if TYPE_CHECKING:
    from espnet2.tts.feats_extract.abs_feats_extract import AbsFeatsExtract

DONE = ".done"
#: Sampling rate in Hz of features that are made without telling one; ESPnet2's class has 16,000, its recipes 22,050.
DEFAULT_FS = 22050


def get_parser() -> argparse.ArgumentParser:
    """Options of this command."""
    parser = argparse.ArgumentParser(
        prog="extract_feats", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--wav_scp", type=Path, required=True, help="list of recordings")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for the results")
    parser.add_argument("--feats_extract", default="fbank", help="fbank (ESPnet2) or original (FloWaveNet 2018)")
    parser.add_argument(
        "--feats_extract_conf", action=NestedDictAction, default={}, help="settings, e.g. fs=16000 (default: 22050)"
    )
    parser.add_argument("--train_config", type=Path, help="what will be trained on them, to be checked against them")
    parser.add_argument("--resample", type=str2bool, default=False, help="convert audio of another rate")
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


class Extraction:
    """One run over one list.

    Args:
        wav_scp: List of recordings.
        output_dir: Folder for the results.
        settings: Feature type and all its settings, the content of feats_extract.yaml.
        resample: Convert audio of another rate.
        skip_bad_utts: Leave bad recordings out instead of failing.
        merged_dir: Where merge_dump joined an earlier result with others.
    """

    def __init__(
        self,
        wav_scp: Path,
        output_dir: Path,
        settings: dict[str, Any],
        resample: bool,
        skip_bad_utts: bool,
        merged_dir: Path | None = None,
    ) -> None:
        self.wavs = read_files(wav_scp)
        if not self.wavs:
            raise ValueError(f"no utterances in {wav_scp}")
        self.dir, self.settings, self.merged_dir = output_dir, settings, merged_dir
        self.resample, self.skip_bad_utts = resample, skip_bad_utts
        self.fingerprint = self._fingerprint()
        self.wav_list: dict[str, str] = {}
        self.over: dict[str, float] = {}
        self.samples: dict[str, int] = {}
        self.frames: dict[str, int] = {}
        self.bad: dict[str, str] = {}
        self.stats = [0, 0.0, 0.0]  # frames, sum and sum of squares over frames

    def _fingerprint(self) -> str:
        """Hash of all that decides the result: recordings (path, size, time of change) and settings."""
        files = []
        for utt, path in self.wavs.items():
            stat = os.stat(path) if os.path.exists(path) else None
            files.append([utt, path, stat and stat.st_size, stat and stat.st_mtime_ns])
        return hashlib.sha256(json.dumps([files, self.settings, self.resample]).encode()).hexdigest()

    def is_complete(self) -> bool:
        """Whether the folder holds the whole result of this very run."""
        done = self.dir / DONE
        if not done.is_file() or done.read_text().strip() != self.fingerprint:
            return False
        if (self.dir / "bad_utts").exists() and not self.skip_bad_utts:
            return False
        try:
            wavs = read_scp(self.dir / "wav.scp")
            return check_arks(self.dir / "feats.scp").keys() == wavs.keys() and all(map(os.path.isfile, wavs.values()))
        except (ValueError, OSError) as error:
            logging.warning(f"{self.dir} is damaged and will be made again: {error}")
            return False

    def run(self, feats_extract: AbsFeatsExtract) -> None:
        """Extract all, then publish.

        Raises:
            ValueError: If recordings are bad. The good ones are written all the same, unless a complete earlier
                result would be lost.
        """
        new_wavs = self.dir / ".wav.tmp-new"
        try:
            with ArkWriter(self.dir / "feats.ark", self.dir / "feats.scp") as writer:
                for utt, feats in self._all_feats(feats_extract, new_wavs):
                    writer[utt] = feats
                self._check_bad()
                self._retire(new_wavs)
        finally:
            shutil.rmtree(new_wavs, ignore_errors=True)
        self._publish()
        if self.bad and not self.skip_bad_utts:
            raise ValueError(f"{self._describe_bad()}; the others are in {self.dir}")
        with atomic_open(self.dir / DONE) as file:
            file.write(f"{self.fingerprint}\n".encode())

    def _all_feats(self, feats_extract: AbsFeatsExtract, new_wavs: Path) -> Iterator[tuple[str, np.ndarray]]:
        """Features of each good utterance; notes lengths, statistics and what is bad."""
        last_report = time.monotonic()
        for number, (utt, path) in enumerate(self.wavs.items(), start=1):
            try:
                wav, feats, changed = self._one(feats_extract, utt, path)
            except ValueError as error:
                self.bad[utt] = str(error)
                logging.error(error)
                continue
            if (peak := float(np.abs(wav).max())) > 1:
                self.over[utt] = peak
            if changed:
                write_wav(new_wavs / f"{utt}.wav", wav, feats_extract.fs, subtype="FLOAT")
                path = str(self.dir / "wav" / f"{utt}.wav")
            self.wav_list[utt], self.samples[utt], self.frames[utt] = path, len(wav), len(feats)
            exact = feats.astype(np.float64)
            self.stats = [self.stats[0] + len(feats), self.stats[1] + exact.sum(0), self.stats[2] + (exact**2).sum(0)]
            yield utt, feats
            if time.monotonic() - last_report > 10:
                last_report = time.monotonic()
                logging.info(f"{number}/{len(self.wavs)} utterances")

    def _one(self, feats_extract: AbsFeatsExtract, utt: str, path: str) -> tuple[np.ndarray, np.ndarray, bool]:
        """Audio and features of a recording, and whether the audio isn't what is in the file; ValueError if bad."""
        from flowavenet_plugin.data.features import extract

        if "/" in utt:
            raise ValueError(f"{utt}: an utterance id can't contain '/', it becomes a file name")
        given, fs = read_audio(path, utt)
        convert = self.resample and fs != feats_extract.fs
        if convert:
            given, fs = resample(given, fs, feats_extract.fs, utt), feats_extract.fs
        wav, feats = extract(feats_extract, given, fs, utt)
        return wav, feats, convert or not np.array_equal(wav, given)

    def _describe_bad(self) -> str:
        first = "; ".join(list(self.bad.values())[:3])
        return f"{len(self.bad)} of {len(self.wavs)} utterances are bad ({first}{'; ...' if len(self.bad) > 3 else ''})"

    def _check_bad(self) -> None:
        """Raises ValueError where nothing should be published."""
        if not self.wav_list and not self.skip_bad_utts:
            raise ValueError(f"{self._describe_bad()}; no good one is left")
        if self.bad and not self.skip_bad_utts and (self.dir / DONE).exists():
            raise ValueError(f"{self._describe_bad()}; the earlier result in {self.dir} was left as it is")

    def _retire(self, new_wavs: Path) -> None:
        """Take the old lists away, then put the new audio in place of the old."""
        if self.merged_dir:
            (self.merged_dir / "feats.scp").unlink(missing_ok=True)
        for name in (DONE, "feats.scp", "wav.scp", "bad_utts"):
            (self.dir / name).unlink(missing_ok=True)
        shutil.rmtree(self.dir / "wav", ignore_errors=True)
        if new_wavs.exists():
            new_wavs.rename(self.dir / "wav")

    def _publish(self) -> None:
        """Write what stands beside the ark."""
        write_scp(self.dir / "wav.scp", self.wav_list)
        write_scp(self.dir / "utt2num_samples", self.samples)
        write_scp(self.dir / "utt2num_frames", self.frames)
        if self.bad:
            write_scp(self.dir / "bad_utts", self.bad)
        write_stats(self.dir / "feats_stats.npz", *self.stats)
        write_settings(self.dir / "feats_extract.yaml", self.settings)


def resample(wav: np.ndarray, fs: int, wanted_fs: int, utt: str) -> np.ndarray:
    """Convert audio (samples,) from ``fs`` to ``wanted_fs`` Hz; ValueError if it is empty, non-finite or silent."""
    import librosa

    from flowavenet_plugin.data.features import check_wav

    check_wav(wav, fs, utt, wanted_fs=fs, min_samples=1)
    return librosa.resample(wav, orig_sr=fs, target_sr=wanted_fs, res_type="soxr_hq")


def write_settings(path: Path, settings: dict[str, Any]) -> None:
    """Write the feature type and its settings as yaml."""
    with atomic_open(path) as file:
        file.write(yaml.safe_dump(settings, sort_keys=False).encode())


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
    from flowavenet_plugin.data.settings import read_settings
    from flowavenet_plugin.tasks.refusals import check_vocoder_conf

    config = read_settings(path) or {}
    if not isinstance(config, dict):
        raise ValueError(f"--train_config {path} is no configuration of options and their values")
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
        job = Extraction(args.wav_scp, args.output_dir, settings, args.resample, args.skip_bad_utts, args.merged_dir)
        if job.is_complete():
            logging.info(f"{args.output_dir} is complete, nothing to do")
            return
        job.run(build_feats_extract(args.feats_extract, conf))
    seconds = sum(job.samples.values()) / conf["fs"]
    logging.info(f"{len(job.samples)} utterances, {seconds:.1f} s of audio, {job.stats[0]} frames: {args.output_dir}")
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
