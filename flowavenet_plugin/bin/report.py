"""Make one page of an experiment's results, to listen and look: report.html, and RESULTS.md beside it.

It takes what evaluate wrote to <experiment>/<inference tag>/<set>/scoring/scores.json. Everything is inside the page:
it opens without network, from a disk or a phone.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from flowavenet_plugin.bin.report_scores import Scored, find_scores, make_rows, recordings, sweep_outdated

# numpy, librosa and matplotlib are imported where they are used: --help and wrong options answer at once.
if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from flowavenet_plugin.evaluation.page import Clip, Curve, Section


def get_parser() -> argparse.ArgumentParser:
    """Options of this command."""
    parser = argparse.ArgumentParser(prog="report", description=__doc__)
    parser.add_argument("--experiment", type=Path, required=True, help="folder of the experiment, exp/voc_x")
    parser.add_argument("--inference_tag", help="decoding to show first (default: the one scored last)")
    parser.add_argument("--output", type=Path, help="page to write (default: report.html of the experiment)")
    parser.add_argument(
        "--num_clips", type=int, default=3, help="utterances of each set to hear (default: %(default)s)"
    )
    parser.add_argument(
        "--max_seconds", type=float, default=8.0, help="longer clips are cut in the page (default: %(default)s)"
    )
    parser.add_argument(
        "--max_systems", type=int, default=6, help="systems to hear, natural speech included (default: %(default)s)"
    )
    return parser


def make_clip(utt: str, text: str, sources: Mapping[str, Mapping[str, str]], max_seconds: float) -> Clip:
    """Read, cut, draw and pack an utterance.

    Raises:
        ValueError: If a file can't be read, or has another rate than the natural speech.
    """
    from flowavenet_plugin.evaluation.page import Clip, Player
    from flowavenet_plugin.evaluation.pictures import draw_pitch, draw_spectrogram
    from flowavenet_plugin.evaluation.plots import log_mel

    wavs, fs = read_clip(utt, sources)
    longest = max(len(wav) for wav in wavs.values()) / fs
    seconds = min(longest, max_seconds)
    wavs = {name: wav[: round(seconds * fs)] for name, wav in wavs.items()}
    loudest = log_mel(wavs["natural"], fs).max()
    players = [
        Player(name, encode(wav, fs), to_png(draw_spectrogram(wav, fs, seconds, loudest))) for name, wav in wavs.items()
    ]
    pitch = to_png(draw_pitch(wavs, fs, seconds)) if find_spec("pyworld") is not None else None
    cut = f" (first {seconds:g} s of {longest:.1f} s)" if longest > seconds else ""
    return Clip(f"{utt}{cut}", text, seconds, players, pitch)


def read_clip(utt: str, sources: Mapping[str, Mapping[str, str]]) -> tuple[dict[str, np.ndarray], int]:
    """Read an utterance of each system that still has it; a missing file is told.

    Returns:
        Label -> waveform, natural speech first, and the sampling rate in Hz.

    Raises:
        ValueError: If the natural speech is missing, a file can't be read, or rates differ.
    """
    from flowavenet_plugin.data.scp import read_audio

    wavs, rates = {}, {}
    for name, files in sources.items():
        if name != "natural" and not Path(files.get(utt, "")).is_file():
            logging.warning(f"{utt}: no audio of {name}: {files.get(utt, 'not in its list')}")
            continue
        wavs[name], rates[name] = read_audio(files[utt], utt, any_scale=True)
        if rates[name] != rates["natural"]:
            raise ValueError(
                f"{utt}: the natural speech has {rates['natural']} Hz, {files[utt]} of {name} has {rates[name]} Hz"
            )
    return wavs, rates["natural"]


def encode(wav: np.ndarray, fs: int) -> bytes:
    """Pack audio, (samples,) in -1 ... 1, as 16-bit FLAC, which every browser plays and which is half of a WAV."""
    import io

    import soundfile

    file = io.BytesIO()
    soundfile.write(file, wav, fs, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def to_png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    import io

    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def make_section(every: Sequence[Scored], dataset: str, args: argparse.Namespace) -> Section:
    """Gather what the page says of a set."""
    from flowavenet_plugin.evaluation.page import Section
    from flowavenet_plugin.evaluation.table import worst_lines

    sources = recordings(every, dataset, args.max_systems)
    text = next(scored.scores for scored in every if scored.dataset == dataset).get("text", {})
    utts = list(sources["natural"])
    clips = [make_clip(utt, text.get(utt, ""), sources, args.max_seconds) for utt in utts[: args.num_clips]]
    rows = make_rows(every, dataset)
    count = sum(not row.natural for row in rows)
    systems = f"{len(sources) - 1} of {count} systems" if count > 1 else "one system"
    heard = f"To hear: {len(clips)} of {len(utts)} utterances, the recordings and {systems}."
    return Section(dataset, rows, clips, heard, worst_lines(rows[0].columns))


def make_curves(experiment: Path, weights: str | None, old: Mapping[Path, str]) -> list[Curve]:
    """Draw the losses and likelihoods, and take the picture of these weights' temperature sweep, as they are there.

    Args:
        experiment: Its folder.
        weights: Checksum of the weights that the page is of.
        old: Scores that aren't of now: file -> reason.
    """
    from flowavenet_plugin.evaluation.page import Curve
    from flowavenet_plugin.evaluation.pictures import draw_likelihood, draw_losses
    from flowavenet_plugin.evaluation.plots import read_losses

    curves = []
    log = experiment / "train.log"
    losses = read_losses(log) if log.is_file() else {}
    if losses:
        curves.append(Curve("Loss of training and validation segments", to_png(draw_losses(losses))))
        parts = {key: read_losses(log, key) for key in ("log_likelihood", "log_p", "logdet")}
        if parts["log_likelihood"]:  # a vocoder of another kind has none
            curves.append(Curve("Log-likelihood of the same segments", to_png(draw_likelihood(parts))))
    sweep = experiment / "sweep" / "sweep.png"
    if sweep.is_file() and (why := sweep_outdated(experiment, weights, old)) is not None:
        logging.warning(f"{sweep} is left out: {why}")
    elif sweep.is_file():
        curves.append(Curve("Scores against the temperature of the noise", sweep.read_bytes(), wide=True))
    return curves


def report(args: argparse.Namespace, command: Sequence[str]) -> Path:
    """Write the page and RESULTS.md.

    Returns:
        The page.

    Raises:
        ValueError: On options that make no sense, or files that can't be read.
        FileNotFoundError: If nothing was scored.
    """
    from flowavenet_plugin.data.scp import atomic_open
    from flowavenet_plugin.evaluation.page import page
    from flowavenet_plugin.evaluation.report import environments, results_markdown
    from flowavenet_plugin.evaluation.table import markdown

    for name, least in (("num_clips", 1), ("max_systems", 2), ("max_seconds", 0.1)):
        if getattr(args, name) < least:
            raise ValueError(f"--{name} is {getattr(args, name)}, at least {least} is wanted")
    tag, every, old = find_scores(args.experiment, args.inference_tag)
    datasets = list(dict.fromkeys(scored.dataset for scored in every if scored.tag == tag))
    output, first = args.output or args.experiment / "report.html", every[0].scores
    config, environment, notes = args.experiment / "config.yaml", environments(), make_notes(every[0])
    weights = Path(first["model_file"] or "unknown").name
    html = page(
        first["title"],
        f"Decoding {tag}, weights {weights}, {environment['date']}",
        [make_section(every, dataset, args) for dataset in datasets],
        make_curves(args.experiment, first["weights"], old),
        notes,
        {"decoding": tag, "weights": first["model_file"], **first["settings"], **environment},
        config.read_text(encoding="utf-8") if config.is_file() else "",
    )
    table = markdown([row for dataset in datasets for row in make_rows(every, dataset, f"{dataset} ")])
    with atomic_open(output) as file:
        file.write(html.encode())
    with atomic_open(output.parent / "RESULTS.md") as file:
        file.write(results_markdown(first["title"], table, "\n\n".join(notes), command, environment).encode())
    return output


def make_notes(scored: Scored) -> list[str]:
    """Say what the figures mean, and what's missing; a paragraph each."""
    level = scored.scores["level"]
    systems = (
        "natural: the recording. temperature t: this experiment's vocoder, given the recording's features, with noise "
        "of deviation t. mel_inversion: the vocoder without weights, from the same features. griffin_lim: phases "
        "estimated from the same features, without a network either. Others by name."
    )
    meaning = (
        "± is half the width of the mean's 95% confidence interval. Log-likelihoods depend on the scale of the audio: "
        f"natural speech of {scored.dataset} has a peak of {level['peak']:.3f} and a root mean square of "
        f"{level['rms']:.4f}, full scale is ±1. "
        "Less is better but for log-likelihood, PESQ, STOI, DistillMOS, DNSMOS, UTMOS and speaker similarity. "
        "DistillMOS and DNSMOS are of a sound alone, 1 to 5, so natural speech has them, too."
    )
    return [systems, meaning, *scored.scores["remarks"]]


def main(cmd: Sequence[str] | None = None) -> None:
    """Entry point; exits with 1 and one line on stderr when the input is bad."""
    cmd = sys.argv[1:] if cmd is None else cmd
    args = get_parser().parse_args(cmd)
    logging.basicConfig(level="INFO", format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    try:
        output = report(args, ["python", "-m", "flowavenet_plugin.bin.report", *cmd])
    except (ValueError, OSError) as error:
        sys.exit(f"report: error: {error}")
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
