"""Compare synthesised with natural speech: results.md, figures per utterance, and a picture.

Log-spectral distance always; log-likelihood of the natural speech with --model_file and --feats_scp; real-time factor
with --utt2rtf; the loss curve with --train_log.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

# numpy, librosa, matplotlib and torch are imported where they are used: --help and wrong options answer at once.
if TYPE_CHECKING:
    import numpy as np

    from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder

_NOTES = """\
Log-likelihood: of the natural speech given its features, mean over samples; it depends on the audio's scale and
background, so compare only on the same data. Log-spectral distance: natural against synthesised speech, 0 to 80 dB,
less is better (`flowavenet_plugin/evaluation/metrics.py` has the formula). Real-time factor: seconds of computing per
second of audio."""


class Lists(NamedTuple):
    """What is compared: utterance id -> file, the same ids in both."""

    natural: dict[str, str]
    synthesised: dict[str, str]


def get_parser() -> argparse.ArgumentParser:
    """Options of this command."""
    parser = argparse.ArgumentParser(prog="evaluate", description=__doc__)
    parser.add_argument("--ref_scp", type=Path, required=True, help="wav.scp of the natural speech")
    parser.add_argument("--gen_scp", type=Path, required=True, help="wav.scp of the synthesised speech")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for the results")
    parser.add_argument("--model_file", type=Path, help="weights, for the log-likelihood; config.yaml lies beside")
    parser.add_argument("--feats_scp", type=Path, help="features of the natural speech, for the log-likelihood")
    parser.add_argument("--utt2rtf", type=Path, help="real-time factors that the synthesis wrote")
    parser.add_argument("--train_log", type=Path, help="train.log of the experiment, for the loss curve")
    parser.add_argument("--title", help="heading of the results (default: the folder of the model)")
    parser.add_argument("--num_plots", type=int, default=2, help="utterances in the picture (default: %(default)s)")
    parser.add_argument(
        "--length_tolerance",
        type=int,
        help="samples by which the lengths of a pair may differ (default: a hop of the model, 20 ms without model)",
    )
    parser.add_argument("--ngpu", type=int, default=0, help="1: log-likelihood on the GPU (default: CPU)")
    parser.add_argument(
        "--log_level", default="INFO", choices=("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG"), help="verbosity"
    )
    return parser


def read_lists(ref_scp: Path, gen_scp: Path) -> Lists:
    """Read both lists.

    Raises:
        ValueError: If they are empty or their ids differ.
        FileNotFoundError: If one is missing.
    """
    from flowavenet_plugin.data.scp import check_same_ids, read_scp

    lists = Lists(read_scp(ref_scp), read_scp(gen_scp))
    for path, entries in zip((ref_scp, gen_scp), lists, strict=True):
        if not entries:
            raise ValueError(f"no utterances in {path}")
    check_same_ids(*lists, str(ref_scp), str(gen_scp))
    return lists


def read_pair(lists: Lists, utt: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Read natural and synthesised speech of an utterance, each (samples,), and their rate in Hz.

    Raises:
        ValueError: If a file can't be read, or the rates differ.
    """
    from flowavenet_plugin.data.scp import read_audio

    natural, fs = read_audio(lists.natural[utt], utt)
    synthesised, other_fs = read_audio(lists.synthesised[utt], utt)
    if fs != other_fs:
        raise ValueError(
            f"{utt}: {lists.natural[utt]} has {fs} Hz, {lists.synthesised[utt]} has {other_fs} Hz; both must be equal"
        )
    return natural, synthesised, fs


def measure_distances(lists: Lists, tolerance: int | None) -> tuple[dict[str, float], dict[str, int], int]:
    """Log-spectral distance of every pair.

    Args:
        lists: What to compare.
        tolerance: Samples by which the lengths of a pair may differ; None: 20 ms.

    Returns:
        Id -> distance in dB, id -> samples of natural speech, and the sampling rate in Hz.

    Raises:
        ValueError: If audio is empty, not finite, or rates or lengths differ; with the id and both numbers.
    """
    from flowavenet_plugin.evaluation.metrics import log_spectral_distance

    distances, samples, rate = {}, {}, 0
    for utt in lists.natural:
        natural, synthesised, fs = read_pair(lists, utt)
        rate = rate or fs
        if fs != rate:
            raise ValueError(f"{utt}: {fs} Hz, the utterances before it have {rate} Hz")
        allowed = math.ceil(0.02 * fs) if tolerance is None else tolerance
        try:
            distances[utt] = log_spectral_distance(natural, synthesised, fs, max_length_difference=allowed)
        except ValueError as error:
            raise ValueError(f"{utt}: {error}") from None
        samples[utt] = len(natural)
    return distances, samples, rate


def has_likelihood(vocoder: AbsVocoder) -> bool:
    """Whether the class of this vocoder computes a likelihood."""
    from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder

    return type(vocoder).log_likelihood is not AbsVocoder.log_likelihood


def measure_likelihoods(
    vocoder: AbsVocoder, wavs: Mapping[str, str], feats_scp: Path, samples: Mapping[str, int], device: str
) -> dict[str, float]:
    """Log-likelihood of the natural speech.

    Args:
        vocoder: A loaded vocoder.
        wavs: Id -> file of natural speech.
        feats_scp: Its features, (frames, n_mels) each.
        samples: Id -> samples.
        device: Where the vocoder is.

    Returns:
        Id -> nats per sample.

    Raises:
        ValueError: If features don't fit the audio or the model, or a likelihood isn't finite.
    """
    import torch

    from flowavenet_plugin.data.scp import check_arks, check_feats, check_same_ids, open_feats, read_audio

    shapes = check_arks(feats_scp)
    check_same_ids(wavs, shapes, "the natural speech", str(feats_scp))
    check_feats(shapes, samples, vocoder.n_mels, vocoder.hop_length)
    feats, likelihoods = open_feats(feats_scp), {}
    for utt, path in wavs.items():
        wav = torch.from_numpy(read_audio(path, utt)[0]).to(device)
        with torch.inference_mode():
            value = float(vocoder.log_likelihood(wav, torch.from_numpy(feats[utt]).to(device)))
        if not math.isfinite(value):
            raise ValueError(f"{utt}: the log-likelihood is {value}, a finite number is wanted")
        likelihoods[utt] = value
    return likelihoods


def read_real_time_factors(path: Path, wavs: Mapping[str, str], gen_scp: Path) -> dict[str, float]:
    """Real-time factors of the synthesised speech; a synthesis that was killed may have left some out.

    Raises:
        ValueError: If there is one of an unknown utterance, or a value is no finite number.
    """
    from flowavenet_plugin.data.scp import read_scp

    factors = {}
    for utt, value in read_scp(path).items():
        if utt not in wavs:
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


def evaluate(args: argparse.Namespace, command: Sequence[str]) -> str:
    """Measure, then write everything: a failure before that leaves earlier results as they are.

    Returns:
        The table, in Markdown.

    Raises:
        ValueError: On bad input; with the utterance and the numbers.
        FileNotFoundError: If a file is missing.
    """
    if (args.model_file is None) != (args.feats_scp is None):
        raise ValueError("--model_file and --feats_scp belong together: the log-likelihood needs both")
    if args.num_plots < 1:
        raise ValueError(f"--num_plots is {args.num_plots}, at least 1 is wanted")
    lists = read_lists(args.ref_scp, args.gen_scp)
    factors = read_real_time_factors(args.utt2rtf, lists.synthesised, args.gen_scp) if args.utt2rtf else {}
    device, vocoder, tolerance = "cuda" if args.ngpu else "cpu", None, args.length_tolerance
    if args.model_file:
        from flowavenet_plugin import load_vocoder

        vocoder = load_vocoder(args.model_file, device=device)
        tolerance = vocoder.hop_length if tolerance is None else tolerance
    distances, samples, fs = measure_distances(lists, tolerance)
    likelihoods: dict[str, float] = {}
    if vocoder is not None:
        if fs != vocoder.fs:
            raise ValueError(f"{next(iter(samples))}: {fs} Hz, but the model {args.model_file} has {vocoder.fs} Hz")
        if has_likelihood(vocoder):
            likelihoods = measure_likelihoods(vocoder, lists.natural, args.feats_scp, samples, device)
        else:
            logging.warning(f"no log-likelihood: {type(vocoder).__name__} has none")
    columns = {
        "log-likelihood (nats/sample)": likelihoods,
        "log-spectral distance (dB)": distances,
        "real-time factor": factors,
    }
    title = args.title or (args.model_file or args.gen_scp).absolute().parent.name
    table = make_table(args.ref_scp.absolute().parent.name, columns)
    write_results(args, lists, fs, columns, title, table, command)
    return table


def make_table(dataset: str, columns: Mapping[str, Mapping[str, float]]) -> str:
    """Lay out a table of one row: the set, how many utterances, and mean and interval of each column."""
    from flowavenet_plugin.evaluation.metrics import summarise
    from flowavenet_plugin.evaluation.report import markdown_table

    count = max(len(values) for values in columns.values())  # distances are there always
    cells = [str(summarise(list(values.values()))) if values else "-" for values in columns.values()]
    return markdown_table(["dataset", "utterances", *columns], [[dataset, str(count), *cells]])


def write_results(
    args: argparse.Namespace,
    lists: Lists,
    fs: int,
    columns: Mapping[str, Mapping[str, float]],
    title: str,
    table: str,
    command: Sequence[str],
) -> None:
    """Write results.md, utt2log_likelihood, utt2lsd and samples.png."""
    from flowavenet_plugin.data.scp import atomic_open, write_scp
    from flowavenet_plugin.evaluation.plots import Pair, plot_samples, read_losses
    from flowavenet_plugin.evaluation.report import results_markdown

    losses = read_losses(args.train_log) if args.train_log else {}
    if args.train_log and not losses:
        logging.warning(f"no loss curve: {args.train_log} has no finished epoch")
    pairs = [Pair(utt, *read_pair(lists, utt)[:2]) for utt in list(lists.natural)[: args.num_plots]]
    with atomic_open(args.output_dir / "samples.png") as file:
        plot_samples(pairs, fs, losses, title).savefig(file, format="png")
    names = ("utt2log_likelihood", "utt2lsd")
    for name, values in zip(names, columns.values(), strict=False):
        if values:
            write_scp(args.output_dir / name, {utt: f"{value:.6f}" for utt, value in values.items()})
    with atomic_open(args.output_dir / "results.md") as file:
        file.write(results_markdown(title, table, _NOTES, command).encode())


def main(cmd: Sequence[str] | None = None) -> None:
    """Entry point; exits with 1 and one line on stderr when the input is bad."""
    cmd = sys.argv[1:] if cmd is None else cmd
    args = get_parser().parse_args(cmd)
    logging.basicConfig(level=args.log_level, format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    try:
        table = evaluate(args, ["python", "-m", "flowavenet_plugin.bin.evaluate", *cmd])
    except (ValueError, OSError) as error:
        sys.exit(f"evaluate: error: {error}")
    print(table)
    logging.info(f"results.md and samples.png are in {args.output_dir}")


if __name__ == "__main__":
    main()
