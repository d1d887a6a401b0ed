"""What the commands of scoring share: the systems that are compared, and their figures. Not a command itself."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

# numpy, librosa and scipy are imported where they are used: --help and wrong options answer at once.
if TYPE_CHECKING:
    import numpy as np

    from flowavenet_plugin.evaluation.scores import Metric
    from flowavenet_plugin.evaluation.table import Column


#: Names of their columns.
LIKELIHOODS = ("log_likelihood", "log_likelihood_bits")


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
        remarks: Lines on what couldn't be measured.
    """

    fs: int
    samples: dict[str, int]
    level: dict[str, float]
    columns: list[list[Column]]
    remarks: list[str]


def read_lists(ref_scp: Path, gen_scp: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Read the lists of natural and synthesised speech: utterance id -> file.

    Raises:
        ValueError: If they are empty or their ids differ.
        FileNotFoundError: If one is missing.
    """
    from flowavenet_plugin.data.scp import check_same_ids, read_scp

    natural, synthesised = read_scp(ref_scp), read_scp(gen_scp)
    for path, entries in ((ref_scp, natural), (gen_scp, synthesised)):
        if not entries:
            raise ValueError(f"no utterances in {path}")
    check_same_ids(natural, synthesised, str(ref_scp), str(gen_scp))
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
    from flowavenet_plugin.data.scp import read_scp

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
    listed = next((read_scp(file) for file in lists if file.is_file()), None)
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


def model_columns(system: System, natural: Mapping[str, str]) -> list[Column]:
    """Likelihoods and real-time factors of another model's decoding, as its own scoring and stage 3 left them.

    Args:
        system: From :func:`find_system`; only a folder ``<experiment>/<inference tag>/<set>`` can have some.
        natural: Utterance id -> file of natural speech.

    Returns:
        Columns of these utterances, as far as there are any.

    Raises:
        ValueError: If a file is damaged.
    """
    from flowavenet_plugin.evaluation.table import Column

    columns, factors = _likelihoods_of(system, natural), system.source / "utt2rtf"
    if factors.is_file():
        values = read_real_time_factors(factors, system.wavs, system.source, more=True)
        columns.append(Column("rtf", "real-time factor", False, values))
    return columns


def _likelihoods_of(system: System, natural: Mapping[str, str]) -> list[Column]:
    """Columns of its scores.json; none, with a warning, if that's of other speech, audio or features than of now."""
    from flowavenet_plugin.bin.features_now import changed_feats
    from flowavenet_plugin.data.provenance import changed_audio
    from flowavenet_plugin.evaluation.table import Column

    path = system.source / "scoring" / "scores.json"
    if not path.is_file():
        return []
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
        columns = [Column(**column) for column in scores["systems"][0]["columns"] if column["name"] in LIKELIHOODS]
        others = [utt for utt in natural if Path(natural[utt]).absolute() != Path(scores["natural"].get(utt, ""))]
        then = scores.get("checksums") if "features" in scores else None
        pairs = [] if then is None else [(natural, then), (system.wavs, scores["systems"][0]["checksums"])]
        changed = [wavs[utt] for wavs, sums in pairs for utt in changed_audio(wavs, sums, natural) if utt in sums]
        other_feats = None if then is None else changed_feats(scores["features"])
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise ValueError(f"--compare {system.name}: {path} is not of evaluate: {error!r}") from None
    if then is None or changed or other_feats is not None:
        why = f"is of another {changed[0]}" if changed else f"is of other features: {other_feats}"
        why = "doesn't tell of which audio and features it is" if then is None else why
        logging.warning(f"no log-likelihood of {system.name}: {path} {why}. Score it again")
        return []
    if others:
        logging.warning(
            f"no log-likelihood of {system.name}: {path} is of other natural speech, for instance for {others[0]}: "
            f"{scores['natural'].get(others[0], 'none')}, not {Path(natural[others[0]]).absolute()}"
        )
        return []
    return [
        column._replace(values={utt: column.values[utt] for utt in natural if utt in column.values})
        for column in columns
    ]


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

    wav, other_fs = read_audio(system.wavs[utt], utt)
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


def compare(natural: Mapping[str, str], systems: Sequence[System], tolerance: int | None) -> Comparison:
    """Measure all metrics of all systems; natural speech is analysed once.

    Args:
        natural: Utterance id -> file.
        systems: What is compared with it.
        tolerance: Samples by which the lengths of a pair may differ; None: 20 ms.

    Raises:
        ValueError: If audio is empty, not finite, or rates or lengths differ; with the id and both numbers.
    """
    from flowavenet_plugin.evaluation.scores import score, usable_metrics
    from flowavenet_plugin.evaluation.speech import Speech

    fs, samples, squares, peak = 0, {}, 0.0, 0.0
    usable: list[Metric] = []
    remarks: list[str] = []
    values: list[dict[str, dict[str, float]]] = [{} for _ in systems]
    for utt, path in natural.items():
        wav, rate = read_natural(path, utt, fs)
        if not fs:
            fs = rate
            usable, remarks = usable_metrics(fs)
        speech = Speech(wav, fs)
        for system, found in zip(systems, values, strict=True):
            other = Speech(read_synthesised(system, utt, wav, fs, tolerance), fs)
            for name, value in score(speech, other, usable).items():
                found.setdefault(name, {})[utt] = value
        samples[utt] = len(wav)
        squares, peak = squares + float((wav.astype(float) ** 2).sum()), max(peak, float(abs(wav).max()))
    level = {"peak": peak, "rms": math.sqrt(squares / sum(samples.values()))}
    columns = [make_columns(usable, found, system.name) for system, found in zip(systems, values, strict=True)]
    return Comparison(fs, samples, level, columns, remarks)


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


def read_real_time_factors(path: Path, wavs: Mapping[str, str], gen_scp: Path, more: bool = False) -> dict[str, float]:
    """Real-time factors of the synthesised speech; a synthesis that was killed may have left some out.

    Args:
        path: utt2rtf.
        wavs: Utterance id -> file.
        gen_scp: Where that is from, for messages.
        more: The file may have other utterances, too; they are left out.

    Raises:
        ValueError: If there is one of an unknown utterance, or a value is no finite number.
    """
    from flowavenet_plugin.data.scp import read_scp

    factors = {}
    for utt, value in read_scp(path).items():
        if utt not in wavs:
            if more:
                continue
            raise ValueError(f"{utt}: '{value}' in {path}, but {gen_scp} has no such utterance")
        try:
            factors[utt] = float(value)
        except ValueError:
            factors[utt] = math.nan
        if not math.isfinite(factors[utt]):
            raise ValueError(f"{utt}: '{value}' in {path} is no real-time factor")
    if len(factors) < len(wavs):
        logging.warning(f"{path} has real-time factors of {len(factors)} of {len(wavs)} utterances")
    return factors
