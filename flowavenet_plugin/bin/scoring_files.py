"""What evaluate writes: results.md, scores.json, figures per utterance, the picture, and what VERSA reads."""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from flowavenet_plugin.bin.model_figures import LIKELIHOODS, model_columns
from flowavenet_plugin.bin.scoring import Comparison, System

if TYPE_CHECKING:
    from flowavenet_plugin.evaluation.table import Column

_NOTES = """\
Log-likelihood: of the natural speech given its features, mean over samples; the audio's full scale is ±1, here with a
peak of {peak:.3f} and a root mean square of {rms:.4f}; it depends on that scale and on the background, so compare only
on the same data. DistillMOS and DNSMOS: of a sound alone, 1 to 5, as networks guess listeners' opinions; the row of the
natural speech says what they make of recordings. All other figures: synthesised against natural speech, less is better
but for these, PESQ, STOI and what VERSA adds to them. Real-time factor: seconds of computing per second of audio.
docs/scoring.md defines each."""


def write(
    args: argparse.Namespace,
    natural: Mapping[str, str],
    systems: Sequence[System],
    found: Comparison,
    likelihoods: Sequence[Column],
    factors: Mapping[str, float],
    settings: Mapping[str, Any],
    made_by: Mapping[str, Any],
    command: Sequence[str],
) -> str:
    """Write everything below ``args.output_dir``.

    Args:
        args: Command line of evaluate.
        natural: Utterance id -> file.
        systems: The first is the one that the results are of.
        found: Its figures and those of the others.
        likelihoods: Columns of the first system alone.
        factors: Its real-time factors.
        settings: How it was synthesised.
        made_by: By what, see :func:`made_by`, and of which ``features``.
        command: Program and arguments.

    Returns:
        The table, in Markdown.

    Raises:
        ValueError: If a result of VERSA can't be read.
        FileNotFoundError: If the training log is missing.
    """
    from flowavenet_plugin.evaluation.table import Column, Row, markdown

    dataset = args.ref_scp.absolute().parent.name
    own = [*likelihoods, *([Column("rtf", "real-time factor", False, factors)] if factors else [])]
    every, words = [], read_text(args.text, natural)
    for number, (system, columns) in enumerate(zip(systems, found.columns, strict=True)):
        of_model = own if number == 0 else model_columns(system, natural)
        first = [column for column in of_model if column.name != "rtf"]
        last = [column for column in of_model if column.name == "rtf"]
        every.append([*first, *columns, *versa_columns(args.output_dir, natural, system, words), *last])
    rows = [
        Row(f"{dataset} {system.name}".strip(), len(natural), columns)
        for system, columns in zip(systems, every, strict=True)
    ]
    if found.natural:
        rows.append(Row(f"{dataset} natural", len(natural), found.natural, natural=True))
    title = args.title or (args.model_file or args.gen_scp).absolute().parent.name
    table = markdown(rows)
    write_picture(args, natural, systems[0], title)
    for system, columns in zip(systems, every, strict=True):
        write_figures(args.output_dir / "compare" / system.name if system.name else args.output_dir, columns)
    write_figures(args.output_dir / "compare" / "natural", found.natural)
    write_versa(args.output_dir, natural, systems, words)
    write_results(args.output_dir, title, table, every[0], found, command)
    write_scores(args, natural, systems, every, found, settings, made_by, words, title)  # last: it tells what of
    return table


def made_by(
    model_file: Path | None, weights: str | None, sources: Mapping[str, Mapping[str, str]], sounds: int
) -> dict[str, str | None]:
    """Say which weights made the first system: those of now, else those that are known beside its sounds.

    Of sounds that nobody knows (another toolkit's, say) no weights are claimed: the model has but their likelihoods.

    Args:
        model_file: Weights of now; None: not given.
        weights: Their checksum.
        sources: Utterance -> what its sound was made of, as far as it is known.
        sounds: Number of its sounds.

    Returns:
        ``model_file`` and ``weights``, each may be None.
    """
    if len(sources) < sounds:
        return {"model_file": str(model_file.absolute()) if model_file else None, "weights": None}
    known = {(source.get("weights"), source.get("model")) for source in sources.values()}
    if model_file is None and len(known) == 1:
        weights, place = known.pop()
        model_file = None if place is None else Path(unquote(place))
    return {"model_file": str(model_file.absolute()) if model_file else None, "weights": weights}


def write_picture(args: argparse.Namespace, natural: Mapping[str, str], system: System, title: str) -> None:
    """Write samples.png: the first utterances, natural and synthesised, and the losses."""
    from flowavenet_plugin.data.scp import atomic_open, read_audio
    from flowavenet_plugin.evaluation.plots import Pair, plot_samples, read_losses

    losses = read_losses(args.train_log) if args.train_log else {}
    if args.train_log and not losses:
        logging.warning(f"no loss curve: {args.train_log} has no finished epoch")
    pairs, fs = [], 0
    for utt in list(natural)[: args.num_plots]:
        wav, fs = read_audio(natural[utt], utt)
        pairs.append(Pair(utt, wav, read_audio(system.wavs[utt], utt, any_scale=True)[0]))
    with atomic_open(args.output_dir / "samples.png") as file:
        plot_samples(pairs, fs, losses, title).savefig(file, format="png")


def write_figures(folder: Path, columns: Sequence[Column]) -> None:
    """Write ``utt2<name>`` of every column that has values; the real-time factors have their file already.

    Figures of an earlier scoring that this one doesn't have are taken away.
    """
    from flowavenet_plugin.data.scp import write_scp

    for name in _figures() - {column.name for column in columns if column.values}:
        (folder / f"utt2{name}").unlink(missing_ok=True)
    for column in columns:
        if column.values and column.name != "rtf":
            write_scp(folder / f"utt2{column.name}", {utt: f"{value:.6f}" for utt, value in column.values.items()})


def _figures() -> set[str]:
    """Name all figures that may have a file."""
    from flowavenet_plugin.evaluation import versa
    from flowavenet_plugin.evaluation.scores import METRICS

    return {*LIKELIHOODS, *versa.NAMES, *(metric.name for metric in METRICS)}


def versa_folder(output_dir: Path, system: System) -> Path:
    """Return where the files for VERSA are."""
    return output_dir / "versa" / system.name if system.name else output_dir / "versa"


def versa_sources(natural: Mapping[str, str], system: System, words: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return what VERSA's results are of: utterance -> checksums of sound, natural speech and transcript."""
    from flowavenet_plugin.data.provenance import audio_checksums, checksum

    sounds, recordings = audio_checksums(system.wavs), audio_checksums(natural)
    said = {utt: checksum(words[utt].encode()) if utt in words else "none" for utt in natural}
    return {utt: {"sound": sounds[utt], "natural": recordings[utt], "text": said[utt]} for utt in natural}


def versa_columns(
    output_dir: Path, natural: Mapping[str, str], system: System, words: Mapping[str, str]
) -> list[Column]:
    """Read VERSA's results of a system, where there are any; those of other audio or transcripts don't count.

    Raises:
        ValueError: If the file isn't of its scorer.
    """
    from flowavenet_plugin.data.provenance import read_sources
    from flowavenet_plugin.evaluation import versa

    path = versa_folder(output_dir, system) / versa.RESULT
    if not path.is_file():
        return []
    asked = read_sources(path.parent)
    changed = [utt for utt, now in versa_sources(natural, system, words).items() if asked.get(utt) != now]
    if changed:
        logging.warning(
            f"{path} is of other audio or text than is there now (of {changed[0]}): renamed, score with VERSA again"
        )
        os.replace(path, path.with_name(f"{path.name}.old"))
        return []
    answers = versa.read_result(path.read_text(encoding="utf-8"), path)
    return versa.columns({utt: answers[utt] for utt in system.wavs if utt in answers})


def read_text(path: Path | None, natural: Mapping[str, str]) -> dict[str, str]:
    """Read the transcripts of these utterances; nothing without a file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it isn't a list of Kaldi's.
    """
    from flowavenet_plugin.data.scp import read_scp

    words = read_scp(path) if path is not None else {}
    return {utt: words[utt] for utt in natural if utt in words}


def write_versa(
    output_dir: Path, natural: Mapping[str, str], systems: Sequence[System], words: Mapping[str, str]
) -> None:
    """Write the lists, the configuration and the commands for VERSA's scorer: versa/run.sh runs them all."""
    from flowavenet_plugin.data.provenance import write_sources
    from flowavenet_plugin.data.scp import atomic_open, write_scp
    from flowavenet_plugin.evaluation import versa

    transcribed = len(words) == len(natural)
    if words and not transcribed:
        lacking = next(utt for utt in natural if utt not in words)
        logging.warning(f"no recognition by VERSA: {len(words)} of {len(natural)} transcripts, none of {lacking}")
    commands = []
    for system in systems:
        folder = versa_folder(output_dir, system)
        write_sources(folder, versa_sources(natural, system, words))  # what its results are of
        for name, wavs in (("gt.scp", natural), ("pred.scp", system.wavs)):
            write_scp(folder / name, {utt: Path(path).absolute() for utt, path in wavs.items()})
        if transcribed:
            write_scp(folder / "text", words)
        with atomic_open(folder / "score.yaml") as file:
            file.write(versa.score_config(transcribed).encode())
        commands.append(versa.scorer_command(folder, transcribed))
    run = output_dir / "versa" / "run.sh"
    with atomic_open(run) as file:
        file.write(versa.script(commands).encode())
    if not (output_dir / "versa" / versa.RESULT).exists():
        logging.info(
            f"for UTMOS, speaker similarity and CER, in an environment with VERSA: bash {run}; then score again"
        )


def write_scores(
    args: argparse.Namespace,
    natural: Mapping[str, str],
    systems: Sequence[System],
    columns: Sequence[Sequence[Column]],
    found: Comparison,
    settings: Mapping[str, Any],
    made_by: Mapping[str, Any],
    text: Mapping[str, str],
    title: str,
) -> None:
    """Write scores.json, all that the report needs; checksums tell which audio it is of."""
    from flowavenet_plugin.data.provenance import audio_checksums
    from flowavenet_plugin.data.scp import atomic_open
    from flowavenet_plugin.evaluation.table import to_json

    scores = {
        "title": title,
        "dataset": args.ref_scp.absolute().parent.name,
        "fs": found.fs,
        "level": found.level,
        **made_by,
        "settings": dict(settings),
        "remarks": found.remarks,
        "natural": {utt: str(Path(path).absolute()) for utt, path in natural.items()},
        "checksums": audio_checksums(natural),
        "natural_columns": [to_json(column) for column in found.natural],
        "text": text,
        "systems": [
            {
                "name": system.name,
                "wavs": {utt: str(Path(path).absolute()) for utt, path in system.wavs.items()},
                "checksums": audio_checksums(system.wavs),
                "columns": [to_json(column) for column in own],
            }
            for system, own in zip(systems, columns, strict=True)
        ],
    }
    with atomic_open(args.output_dir / "scores.json") as file:
        file.write(json.dumps(scores, ensure_ascii=False).encode())


def write_results(
    output_dir: Path, title: str, table: str, columns: Sequence[Column], found: Comparison, command: Sequence[str]
) -> None:
    """Write results.md."""
    from flowavenet_plugin.data.scp import atomic_open
    from flowavenet_plugin.evaluation.report import results_markdown
    from flowavenet_plugin.evaluation.table import worst_lines

    for remark in found.remarks:
        logging.warning(remark)
    notes = [_NOTES.format(**found.level), *(f"- {remark}" for remark in found.remarks)]
    worst = worst_lines(columns)
    if worst:
        notes.append("\n".join(["Worst utterances:", "", *worst]))
    with atomic_open(output_dir / "results.md") as file:
        file.write(results_markdown(title, table, "\n\n".join(notes), command).encode())
