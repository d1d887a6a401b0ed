"""Make one page of an experiment's results, to listen and look: report.html, and RESULTS.md beside it.

It takes what evaluate wrote to <experiment>/<inference tag>/<set>/scoring/scores.json. Everything is inside the page:
it opens without network, from a disk or a phone.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

# numpy, librosa and matplotlib are imported where they are used: --help and wrong options answer at once.
if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from flowavenet_plugin.evaluation.page import Clip, Curve, Section
    from flowavenet_plugin.evaluation.table import Row


class Scored(NamedTuple):
    """A decoded set.

    Attributes:
        tag: Folder of the decoding.
        dataset: Folder of the set.
        scores: What evaluate wrote.
    """

    tag: str
    dataset: str
    scores: dict[str, Any]


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


def find_scores(experiment: Path, tag: str | None) -> tuple[str, list[Scored]]:
    """Find all scored sets of an experiment.

    Returns:
        The tag to show first, and all sets, of that tag first.

    Raises:
        FileNotFoundError: If there are none, or none of that tag.
        ValueError: If a file is damaged.
    """
    paths = sorted(experiment.glob("*/*/scoring/scores.json"))
    if not paths:
        raise FileNotFoundError(f"no */*/scoring/scores.json in {experiment}: score a decoding first")
    if tag is None:
        tag = max(paths, key=lambda path: path.stat().st_mtime).parents[2].name
    found = []
    for path in paths:
        try:
            scores = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        found.append(Scored(path.parents[2].name, path.parents[1].name, scores))
    first = [scored for scored in found if scored.tag == tag]
    if not first:
        raise FileNotFoundError(f"no {tag}/*/scoring/scores.json in {experiment}")
    # a sweep decodes at the first decoding's temperature, too: the same sound
    same = f"temperature{temperature(first[0]):g}_{Path(first[0].scores['model_file'] or '').stem}"
    found = [scored for scored in found if scored.tag == tag or scored.tag != same]
    return tag, sorted(found, key=lambda scored: (scored.tag != tag, temperature(scored), scored.tag, scored.dataset))


def temperature(scored: Scored) -> float:
    """Temperature of a decoding; -1 if it isn't known."""
    value = scored.scores["settings"].get("temperature")
    return -1.0 if value is None else float(value)


def label(scored: Scored, every: Sequence[Scored]) -> str:
    """Name a decoding: by its temperature, if no other decoding of the set has it, else by its tag."""
    alike = {other.tag for other in every if temperature(other) == temperature(scored)}
    return f"temperature {temperature(scored):g}" if temperature(scored) >= 0 and len(alike) == 1 else scored.tag


def make_rows(every: Sequence[Scored], dataset: str, prefix: str = "") -> list[Row]:
    """Return the scores of a set: of the first decoding, of what it was compared with, of other decodings."""
    from flowavenet_plugin.evaluation.table import Column, Row

    rows = []
    for scored in (scored for scored in every if scored.dataset == dataset):
        first = scored.tag == every[0].tag
        for system in scored.scores["systems"]:
            if system["name"] and not first:
                continue  # the same comparisons were made with the first decoding
            name = system["name"] or label(scored, every)
            columns = [Column(**column) for column in system["columns"]]
            rows.append(Row(f"{prefix}{name}", len(scored.scores["natural"]), columns))
    return rows


def recordings(every: Sequence[Scored], dataset: str, max_systems: int) -> dict[str, Mapping[str, str]]:
    """Return label -> utterance -> file, natural speech first.

    Of more decodings than may be heard, those are taken that spread over the range of temperatures.
    """
    of_set = [scored for scored in every if scored.dataset == dataset]
    first, others = of_set[0], of_set[1:]
    sources = {"natural": first.scores["natural"], label(first, every): first.scores["systems"][0]["wavs"]}
    sources |= {system["name"]: system["wavs"] for system in first.scores["systems"][1:]}
    room = max(max_systems - len(sources), 0)
    if len(others) > room:
        others = [others[round(index * (len(others) - 1) / max(room - 1, 1))] for index in range(room)]
    return sources | {label(scored, every): scored.scores["systems"][0]["wavs"] for scored in others}


def make_clip(utt: str, sources: Mapping[str, Mapping[str, str]], max_seconds: float) -> Clip:
    """Read, cut, draw and pack an utterance; a system without a file of it is left out, with a warning.

    Raises:
        ValueError: If a file can't be read.
    """
    from flowavenet_plugin.data.scp import read_audio
    from flowavenet_plugin.evaluation.page import Clip, Player
    from flowavenet_plugin.evaluation.pictures import draw_clip

    wavs: dict[str, np.ndarray] = {}
    fs, longest = 0, 0.0
    for name, files in sources.items():
        if utt not in files or not Path(files[utt]).is_file():
            logging.warning(f"{utt}: no audio of {name}")
            continue
        wav, fs = read_audio(files[utt], utt)
        longest = max(longest, len(wav) / fs)
        wavs[name] = wav[: round(max_seconds * fs)]
    cut = f" (first {max_seconds:g} s of {longest:.1f} s)" if longest > max_seconds else ""
    players = [Player(name, encode(wav, fs)) for name, wav in wavs.items()]
    return Clip(f"{utt}{cut}", players, to_png(draw_clip(wavs, fs)))


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
    utts = list(sources["natural"])
    clips = [make_clip(utt, sources, args.max_seconds) for utt in utts[: args.num_clips]]
    systems = {scored.tag for scored in every if scored.dataset == dataset}
    heard = f"To hear: {len(clips)} of {len(utts)} utterances."
    if len(systems) > 1:
        heard += f" {len(systems)} decodings were scored; at most {args.max_systems} systems are to be heard."
    rows = make_rows(every, dataset)
    return Section(dataset, rows, clips, heard, worst_lines(rows[0].columns))


def make_curves(experiment: Path) -> list[Curve]:
    """Draw the losses, and take the picture of the temperature sweep, as far as they are there."""
    from flowavenet_plugin.evaluation.page import Curve
    from flowavenet_plugin.evaluation.pictures import draw_losses
    from flowavenet_plugin.evaluation.plots import read_losses

    curves = []
    log = experiment / "train.log"
    losses = read_losses(log) if log.is_file() else {}
    if losses:
        caption = "Loss: negative log-likelihood of training and validation segments, nats per sample"
        curves.append(Curve(caption, to_png(draw_losses(losses))))
    sweep = experiment / "sweep" / "sweep.png"
    if sweep.is_file():
        curves.append(Curve("Scores against the temperature of the noise", sweep.read_bytes()))
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
    tag, every = find_scores(args.experiment, args.inference_tag)
    datasets = list(dict.fromkeys(scored.dataset for scored in every if scored.tag == tag))
    output, first = args.output or args.experiment / "report.html", every[0].scores
    config, environment, notes = args.experiment / "config.yaml", environments(), make_notes(every[0])
    html = page(
        first["title"],
        [make_section(every, dataset, args) for dataset in datasets],
        make_curves(args.experiment),
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
    meaning = (
        "± is half the width of the mean's 95% confidence interval. Log-likelihoods depend on the scale of the audio: "
        f"natural speech of {scored.dataset} has a peak of {level['peak']:.3f} and a root mean square of "
        f"{level['rms']:.4f}, full scale is ±1. "
        "Less is better but for log-likelihood, PESQ, STOI, UTMOS and speaker similarity."
    )
    return [meaning, *scored.scores["remarks"]]


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
