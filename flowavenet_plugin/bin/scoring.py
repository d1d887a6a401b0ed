"""What the commands of scoring share: the systems that are compared, and their figures. Not a command itself."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

# numpy, librosa and scipy are imported where they are used: --help and wrong options answer at once.
if TYPE_CHECKING:
    import numpy as np

    from flowavenet_plugin.evaluation.scores import Metric
    from flowavenet_plugin.evaluation.table import Column


class System(NamedTuple):
    """Synthesised speech.

    Attributes:
        name: Name in tables; empty for the system that the results are of.
        source: Where its audio was found.
        wavs: Utterance id -> file, in the order of the natural speech.
    """

    name: str
    source: Path
    wavs: dict[str, str]


class Comparison(NamedTuple):
    """Natural speech against systems.

    Attributes:
        fs: Sampling rate in Hz.
        samples: Utterance id -> samples of natural speech.
        level: What the scale of the natural audio is: peak and root mean square of all, full scale is 1.
        columns: Of each system, in their order.
        natural: Of the natural speech: what can be heard without another to compare with.
        remarks: Lines on what couldn't be measured.
    """

    fs: int
    samples: dict[str, int]
    level: dict[str, float]
    columns: list[list[Column]]
    natural: list[Column]
    remarks: list[str]


def read_lists(ref_scp: Path, gen_scp: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Read the lists of natural and synthesised speech: utterance id -> file.

    Raises:
        ValueError: If they are empty, or natural speech has no synthesised one. More of that may be there.
        FileNotFoundError: If one is missing.
    """
    from flowavenet_plugin.data.scp import check_same_ids, read_files

    natural, synthesised = read_files(ref_scp), read_files(gen_scp)
    for path, entries in ((ref_scp, natural), (gen_scp, synthesised)):
        if not entries:
            raise ValueError(f"no utterances in {path}")
    shared = [utt for utt in synthesised if utt in natural]
    check_same_ids(natural, shared or synthesised, str(ref_scp), str(gen_scp))
    if len(shared) < len(synthesised):
        more = [utt for utt in synthesised if utt not in natural]
        logging.info(f"{len(more)} utterances of {gen_scp} aren't in {ref_scp} and aren't scored: {more[0]}, ...")
    return natural, {utt: synthesised[utt] for utt in natural}


def find_system(spec: str, utts: Sequence[str], dataset: str) -> System:
    """Find the audio of another system.

    Args:
        spec: ``name=path``. The path is a wav.scp, or a folder with ``<dataset>/`` in it, ``wav/wav.scp``, ``wav.scp``,
            or files ``<utterance>.wav``, ``<utterance>_gen.wav`` (as ParallelWaveGAN has them) or the same in flac.
        utts: Utterances wanted; more may be there.
        dataset: Name of the set.

    Raises:
        ValueError: If the name can't be one, or utterances are missing; with how many and the first.
        FileNotFoundError: If there is no such path.
    """
    from flowavenet_plugin.data.scp import read_files

    name, _, place = spec.partition("=")
    if not name or not place or "/" in name or "|" in name or name.startswith("."):
        raise ValueError(f"--compare '{spec}': name=path is wanted, with a name that can be a file's")
    if name == "natural":
        raise ValueError(f"--compare '{spec}': 'natural' is the name of the recordings")
    path = Path(place)
    if not path.exists():
        raise FileNotFoundError(f"--compare {name}: no such file or folder: {path}")
    if path.is_dir() and (path / dataset).is_dir():
        path = path / dataset
    lists = [path] if path.is_file() else [path / "wav" / "wav.scp", path / "wav.scp"]
    listed = next((read_files(file) for file in lists if file.is_file()), None)
    wavs = {utt: listed.get(utt) if listed is not None else _file_of(path, utt) for utt in utts}
    missing = [utt for utt, file in wavs.items() if file is None]
    if missing:
        raise ValueError(
            f"--compare {name}: {len(missing)} of {len(utts)} utterances aren't in {path}: {missing[0]}, ..."
        )
    return System(name, path, {utt: str(file) for utt, file in wavs.items()})


def _file_of(folder: Path, utt: str) -> Path | None:
    names = [f"{utt}{end}.{kind}" for kind in ("wav", "flac") for end in ("", "_gen")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_natural(path: str, utt: str, rate: int) -> tuple[np.ndarray, int]:
    """Read natural speech, (samples,), and its rate in Hz, which must be ``rate`` unless that is 0.

    Raises:
        ValueError: If the file can't be read, or has another rate.
    """
    from flowavenet_plugin.data.scp import read_audio

    wav, fs = read_audio(path, utt)
    if rate and fs != rate:
        raise ValueError(f"{utt}: {fs} Hz, the utterances before it have {rate} Hz")
    return wav, fs


def read_synthesised(system: System, utt: str, natural: np.ndarray, fs: int, tolerance: int | None) -> np.ndarray:
    """Read synthesised speech, (samples,), that can be compared with the natural.

    Raises:
        ValueError: If the file can't be read, or rates or lengths differ; with the id and both numbers.
    """
    from flowavenet_plugin.data.scp import read_audio
    from flowavenet_plugin.evaluation.metrics import check_pair

    wav, other_fs = read_audio(system.wavs[utt], utt, any_scale=True)
    of = f" of {system.name}" if system.name else ""
    if fs != other_fs:
        raise ValueError(
            f"{utt}{of}: the natural speech has {fs} Hz, {system.wavs[utt]} has {other_fs} Hz; both must be equal"
        )
    try:
        check_pair(natural, wav, math.ceil(0.02 * fs) if tolerance is None else tolerance)
    except ValueError as error:
        raise ValueError(f"{utt}{of}: {error}") from None
    return wav


def compare(
    natural: Mapping[str, str], systems: Sequence[System], tolerance: int | None, leave_out: Collection[str] = ()
) -> Comparison:
    """Measure all metrics of all systems; natural speech is analysed once.

    Args:
        natural: Utterance id -> file.
        systems: What is compared with it.
        tolerance: Samples by which the lengths of a pair may differ; None: 20 ms.
        leave_out: Names of metrics that aren't wanted.

    Raises:
        ValueError: If audio is empty, not finite, or rates or lengths differ; with the id and both numbers.
    """
    from flowavenet_plugin.evaluation.scores import score, usable_metrics
    from flowavenet_plugin.evaluation.speech import Speech

    fs, samples, squares, peak = 0, {}, 0.0, 0.0
    usable: list[Metric] = []
    remarks: list[str] = []
    values: list[dict[str, dict[str, float]]] = [{} for _ in (*systems, None)]  # the last: of natural speech
    for utt, path in natural.items():
        wav, rate = read_natural(path, utt, fs)
        if not fs:
            fs = rate
            usable, remarks = usable_metrics(fs, leave_out)
        speech, alone = Speech(wav, fs), [metric for metric in usable if metric.alone]
        others = [Speech(read_synthesised(system, utt, wav, fs, tolerance), fs) for system in systems]
        try:
            figures = [score(speech, other, usable) for other in others] + [score(speech, speech, alone)]
        except ValueError as error:
            raise ValueError(f"{utt}: {error}") from error
        for found, scored in zip(values, figures, strict=True):
            for name, value in scored.items():
                found.setdefault(name, {})[utt] = value
        samples[utt] = len(wav)
        squares, peak = squares + float((wav.astype(float) ** 2).sum()), max(peak, float(abs(wav).max()))
    level = {"peak": peak, "rms": math.sqrt(squares / sum(samples.values()))}
    columns = [make_columns(usable, found, system.name) for system, found in zip(systems, values[:-1], strict=True)]
    alone = [metric for metric in usable if metric.alone]
    return Comparison(fs, samples, level, columns, make_columns(alone, values[-1], "natural speech"), remarks)


def make_columns(metrics: Sequence[Metric], values: Mapping[str, Mapping[str, float]], system: str) -> list[Column]:
    """Turn figures (metric -> utterance -> value, NaN where undefined) into columns, and warn of undefined ones."""
    from flowavenet_plugin.evaluation.table import Column, finite

    columns = []
    for metric in metrics:
        defined = finite(values[metric.name])
        missing = [utt for utt in values[metric.name] if utt not in defined]
        if missing:
            where = f"{len(missing)} of {len(values[metric.name])} utterances{f' of {system}' if system else ''}"
            logging.warning(f"{metric.heading} isn't defined for {where}: {', '.join(missing[:5])}")
        columns.append(Column(metric.name, metric.heading, metric.more_is_better, defined))
    return columns
