"""The metrics of speech: one table of what there is, what it needs, and which way is better."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Sequence
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np

from flowavenet_plugin.evaluation import mos
from flowavenet_plugin.evaluation.mel_cepstrum import mel_cepstral_distortion
from flowavenet_plugin.evaluation.metrics import log_spectral_distance
from flowavenet_plugin.evaluation.spectral import log_mel_distance, multi_resolution_stft_distance
from flowavenet_plugin.evaluation.speech import Speech


class Metric(NamedTuple):
    """A figure of synthesised speech, most by comparing it with natural speech.

    Attributes:
        name: Its file is ``utt2<name>``.
        heading: Head of its column, with the unit.
        more_is_better: Whether large values are good.
        function: Natural and synthesised speech of one length -> value; NaN where it isn't defined.
        package: What has to be installed for it; empty: nothing more.
        min_fs: Lowest sampling rate in Hz that it takes.
        alone: It hears the synthesised speech alone, so that natural speech has a value, too.
        needs: Which of the two mustn't be silent; the metric isn't defined then.
    """

    name: str
    heading: str
    more_is_better: bool
    function: Callable[[Speech, Speech], float]
    package: str = ""
    min_fs: int = 0
    alone: bool = False
    needs: Collection[str] = ("natural",)


def log_f0_rmse(natural: Speech, synthesised: Speech) -> float:
    """Root mean square of ln(F0) differences, over frames that are voiced in both; NaN if there is none."""
    both = (natural.f0 > 0) & (synthesised.f0 > 0)
    if not both.any():
        return math.nan
    difference = np.log(natural.f0[both]) - np.log(synthesised.f0[both])
    return float(np.sqrt(np.mean(difference**2)))


def voicing_error(natural: Speech, synthesised: Speech) -> float:
    """Frames, in percent of all, that are voiced in one and unvoiced in the other."""
    return float(100.0 * np.mean((natural.f0 > 0) != (synthesised.f0 > 0)))


def periodicity_rmse(natural: Speech, synthesised: Speech) -> float:
    """Root mean square of the differences of periodicity, over frames without pauses; NaN if there is none."""
    active = natural.active
    if not active.any():
        return math.nan
    return float(np.sqrt(np.mean((natural.periodicity[active] - synthesised.periodicity[active]) ** 2)))


def cepstral_distortion(natural: Speech, synthesised: Speech) -> float:
    """Mel-cepstral distortion in dB over frames without pauses; NaN if there is none."""
    return mel_cepstral_distortion(natural.cepstrum[natural.active], synthesised.cepstrum[natural.active])


def pesq_score(natural: Speech, synthesised: Speech) -> float:
    """PESQ of ITU-T P.862.2 (wide band, at 16 kHz), or below that rate P.862 (narrow band, at 8 kHz); 1 to 4.64.

    Returns:
        The score; NaN for speech that PESQ refuses: shorter than 1/4 s. Of silence the package fails.
    """
    import pesq

    fs, band = (16000, "wb") if natural.fs >= 16000 else (8000, "nb")
    try:
        return float(pesq.pesq(fs, natural.at(fs), synthesised.at(fs), band))
    except pesq.PesqError:
        return math.nan


def stoi_score(natural: Speech, synthesised: Speech) -> float:
    """Short-time objective intelligibility, at most 1; NaN if less than 30 frames (0.4 s) aren't silent."""
    import pystoi

    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # that is how it tells of too little speech
        try:
            return float(pystoi.stoi(natural.wav, synthesised.wav, natural.fs))
        except (RuntimeWarning, ValueError):
            return math.nan


#: How the package of a module is added; where there are no wheels, what it is built with.
INSTALL = {
    "pyworld": "pip install --no-deps pyworld-prebuilt",
    "pesq": "pip install --no-deps pesq (built from source: a C compiler and Python's headers)",
    "pystoi": "pip install --no-deps pystoi",
    "distillmos": "pip install --no-deps distillmos xls-r-sqa",
    "speechmos": "pip install --no-deps speechmos onnxruntime flatbuffers",
}
#: What else a package imports, beyond what the environment has for other reasons.
_ALSO = {"distillmos": ["xls_r_sqa"], "speechmos": ["onnxruntime"]}

_BOTH, _OTHER = ("natural", "synthesised"), ("synthesised",)

METRICS = (
    Metric(
        "lsd",
        "log-spectral distance (dB)",
        False,
        lambda natural, other: log_spectral_distance(natural.wav, other.wav, natural.fs),
    ),
    Metric(
        "log_mel",
        "log-mel distance (dB)",
        False,
        lambda natural, other: log_mel_distance(natural.wav, other.wav, natural.fs),
    ),
    Metric(
        "mr_stft",
        "multi-resolution STFT",
        False,
        lambda natural, other: multi_resolution_stft_distance(natural.wav, other.wav),
    ),
    Metric("mcd", "MCD (dB)", False, cepstral_distortion, "pyworld"),
    Metric("log_f0_rmse", "log-F0 RMSE", False, log_f0_rmse, "pyworld"),
    Metric("vuv_error", "V/UV error (%)", False, voicing_error, "pyworld"),
    Metric("periodicity", "periodicity RMSE", False, periodicity_rmse),
    Metric("pesq", "PESQ", True, pesq_score, "pesq", 8000, needs=_BOTH),
    Metric("stoi", "STOI", True, stoi_score, "pystoi", 10000),
    Metric("distillmos", "DistillMOS", True, lambda _, own: own.distill_mos, "distillmos", mos.RATE, True, _OTHER),
    Metric("dnsmos", "DNSMOS", True, lambda _, own: own.dnsmos[0], "speechmos", mos.RATE, True, _OTHER),
    Metric("dnsmos_p808", "DNSMOS P.808", True, lambda _, own: own.dnsmos[1], "speechmos", mos.RATE, True, _OTHER),
)


def usable_metrics(fs: int, leave_out: Collection[str] = ()) -> tuple[list[Metric], list[str]]:
    """Sort out what can't be computed here.

    Args:
        fs: Sampling rate in Hz.
        leave_out: Names of metrics that aren't wanted.

    Returns:
        The metrics that can, and a line for each package or rate that keeps others away.
    """
    wanted = [metric for metric in METRICS if metric.name not in leave_out]
    usable = [metric for metric in wanted if fs >= metric.min_fs and (not metric.package or _there(metric.package))]
    lines = []
    for package in dict.fromkeys(metric.package for metric in wanted if metric.package and not _there(metric.package)):
        names = ", ".join(metric.heading for metric in wanted if metric.package == package)
        lines.append(f"left out: {names}; install {package}: {INSTALL[package]}")
    for metric in wanted:
        if fs < metric.min_fs:
            lines.append(f"left out: {metric.heading}; it needs {metric.min_fs} Hz, this is {fs} Hz")
    return usable, lines


def check_names(names: Collection[str], option: str) -> None:
    """Check names of metrics.

    Raises:
        ValueError: If one is none; with all that there are.
    """
    known = [metric.name for metric in METRICS]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"{option}: there is no figure '{unknown[0]}'; there are: {', '.join(known)}")


def score(natural: Speech, synthesised: Speech, metrics: Sequence[Metric]) -> dict[str, float]:
    """Compare two recordings, aligned as they are and cut to the shorter one.

    Returns:
        Name -> value, NaN where a metric isn't defined: also where it needs sound, and there is silence.

    Raises:
        ValueError: If the sampling rates differ, with both; or a metric fails, with its name.
    """
    if natural.fs != synthesised.fs:
        raise ValueError(f"{natural.fs} Hz and {synthesised.fs} Hz; both must be equal")
    samples = min(len(natural.wav), len(synthesised.wav))
    pair = natural.cut(samples), synthesised.cut(samples)
    silent = [name for name, speech in zip(_BOTH, pair, strict=True) if speech.silent]
    return {
        metric.name: math.nan if any(name in metric.needs for name in silent) else _value(metric, pair)
        for metric in metrics
    }


def _value(metric: Metric, pair: tuple[Speech, Speech]) -> float:
    try:
        return metric.function(*pair)
    except Exception as error:  # packages of others fail in ways of their own
        raise ValueError(f"{metric.heading} (--leave_out {metric.name} does without) fails: {error!r}") from error


def _there(package: str) -> bool:
    return all(find_spec(name) is not None for name in (package, *_ALSO.get(package, ())))
