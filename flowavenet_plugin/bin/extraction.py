"""The work of ``extract_feats``: recordings to features, audio, lengths and statistics, published when all is there."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from flowavenet_plugin.data.audio import WHOLE, read_audio
from flowavenet_plugin.data.decoded import write_wav
from flowavenet_plugin.data.recordings import Recording
from flowavenet_plugin.data.scp import ArkWriter, atomic_open, check_arks, read_scp, write_scp
from flowavenet_plugin.data.stats import write_stats

if TYPE_CHECKING:
    from espnet2.tts.feats_extract.abs_feats_extract import AbsFeatsExtract

#: Name of the mark in the folder of a result that is complete.
DONE = ".done"


class Extraction:
    """One run over one list.

    Args:
        recordings: Utterance -> its audio.
        output_dir: Folder for the results.
        settings: Feature type and all its settings, the content of feats_extract.yaml.
        resample: Convert audio of another rate.
        channel: Of recordings of several: a number from 0, or ``mix``; None: one is wanted.
        skip_bad_utts: Leave bad recordings out instead of failing.
        merged_dir: Where merge_dump joined an earlier result with others.
    """

    def __init__(
        self,
        recordings: Mapping[str, Recording],
        output_dir: Path,
        settings: dict[str, Any],
        *,
        resample: bool = False,
        channel: int | str | None = None,
        skip_bad_utts: bool = False,
        merged_dir: Path | None = None,
    ) -> None:
        self.recordings = {utt: recording.of_channel(channel) for utt, recording in recordings.items()}
        self.dir, self.settings, self.merged_dir = output_dir, settings, merged_dir
        self.resample, self.skip_bad_utts = resample, skip_bad_utts
        self.fingerprint = self._fingerprint()
        self.wav_list: dict[str, str] = {}
        self.over: dict[str, float] = {}
        self.samples: dict[str, int] = {}
        self.frames: dict[str, int] = {}
        self.bad: dict[str, str] = {}
        self.untold = 0  # recordings without a sampling rate
        self.stats = [0, 0.0, 0.0]  # frames, sum and sum of squares over frames

    def _fingerprint(self) -> str:
        """Hash of all that decides the result: recordings (path, size, time of change, part) and settings."""
        files = []
        for utt, recording in self.recordings.items():
            stat = os.stat(recording.file) if os.path.exists(recording.file) else None
            files.append([utt, recording.entry, stat and stat.st_size, stat and stat.st_mtime_ns])
            if recording.part != WHOLE:  # what is whole has the hash of earlier versions, and isn't made again
                files[-1].append(recording.part)
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
        for number, (utt, recording) in enumerate(self.recordings.items(), start=1):
            path = recording.entry
            try:
                wav, feats, changed = self._one(feats_extract, utt, recording)
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
                logging.info(f"{number}/{len(self.recordings)} utterances")

    def _one(
        self, feats_extract: AbsFeatsExtract, utt: str, recording: Recording
    ) -> tuple[np.ndarray, np.ndarray, bool]:
        """Audio and features of an utterance, and whether the audio isn't all of a file; ValueError if it is bad."""
        from flowavenet_plugin.data.features import extract

        if "/" in utt:
            raise ValueError(f"{utt}: an utterance id can't contain '/', it becomes a file name")
        given, fs = read_audio(recording.entry, utt, part=recording.part, hdf5_fs=feats_extract.fs)
        self.untold += recording.is_hdf5
        convert = self.resample and fs != feats_extract.fs
        if convert:
            given, fs = resample(given, fs, feats_extract.fs, utt), feats_extract.fs
        wav, feats = extract(feats_extract, given, fs, utt)
        return wav, feats, convert or not recording.is_plain_file() or not np.array_equal(wav, given)

    def _describe_bad(self) -> str:
        first = "; ".join([*list(self.bad.values())[:3], *["..."] * (len(self.bad) > 3)])
        return f"{len(self.bad)} of {len(self.recordings)} utterances are bad ({first})"

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
