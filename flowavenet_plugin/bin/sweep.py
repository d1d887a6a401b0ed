"""Synthesise and score at several temperatures: how likely against how clean, in one table and one picture.

Each temperature gets a folder <experiment>/temperature<t>_<weights>/<set> like any other decoding, so that the report
finds it; the table and the picture are <experiment>/sweep/sweep.{md,png}. What is there already is kept.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

if TYPE_CHECKING:
    from flowavenet_plugin.evaluation.table import Column, Row

#: 0.0, 0.1, ..., 1.0.
DEFAULT_TEMPERATURES = tuple(tenth / 10 for tenth in range(11))
#: Figures in the picture, as far as they are there.
_DRAWN = (
    "lsd",
    "log_mel",
    "mr_stft",
    "mcd",
    "log_f0_rmse",
    "vuv_error",
    "periodicity",
    "pesq",
    "stoi",
    "distillmos",
    "dnsmos",
)


def get_parser() -> argparse.ArgumentParser:
    """Options of this command."""
    parser = argparse.ArgumentParser(prog="sweep", description=__doc__)
    parser.add_argument("--model_file", type=Path, required=True, help="weights, e.g. exp/voc_x/valid.loss.best.pth")
    parser.add_argument("--dump_dir", type=Path, required=True, help="features of all sets, e.g. dump/fbank")
    parser.add_argument("--sets", nargs="+", required=True, help="sets to synthesise, e.g. dev eval1")
    parser.add_argument("--experiment", type=Path, help="folder to write to (default: the folder of the weights)")
    parser.add_argument(
        "--temperatures",
        nargs="+",
        type=float,
        default=list(DEFAULT_TEMPERATURES),
        help="deviations of the noise, from 0 (default: 0.0, 0.1, ..., 1.0)",
    )
    parser.add_argument("--inference_config", type=Path, help="options of the synthesis (conf/decode.yaml)")
    parser.add_argument("--inference_args", default="", help="and those of its command line, e.g. '--refine 32'")
    parser.add_argument("--leave_out", nargs="+", default=[], metavar="FIGURE", help="figures not to measure")
    parser.add_argument("--ngpu", type=int, default=0, choices=(0, 1), help="1: synthesise on the GPU")
    return parser


def decode(args: argparse.Namespace, temperature: float, dataset: str) -> Path:
    """Synthesise a set, unless it is there, of these features by these weights.

    Returns:
        Its folder.
    """
    from flowavenet_plugin.bin import vocoder_inference

    folder = args.experiment / f"temperature{temperature:g}_{args.model_file.stem}" / dataset
    feats = args.dump_dir / dataset / "feats.scp"
    options = ["--config", str(args.inference_config)] if args.inference_config else []
    options += vocoder_inference.split_arguments(args.inference_args)  # the temperature of this folder wins
    options += ["--scp", str(feats), "--model_file", str(args.model_file), "--output_dir", str(folder)]
    vocoder_inference.main([*options, "--temperature", str(temperature), "--ngpu", str(args.ngpu)])
    return folder


def score(args: argparse.Namespace, temperature: float, dataset: str, folder: Path) -> dict[str, Any]:
    """Score a synthesised set; the likelihood doesn't depend on the temperature and is left out.

    Returns:
        The content of scores.json.
    """
    from flowavenet_plugin.bin import evaluate
    from flowavenet_plugin.data.settings import read_feats_settings

    dump = args.dump_dir / dataset
    settings = read_feats_settings(dump / "feats_extract.yaml")
    options = [f"--ref_scp={dump}/wav.scp", f"--gen_scp={folder}/wav/wav.scp", f"--output_dir={folder}/scoring"]
    options += [f"--utt2rtf={folder}/utt2rtf", f"--title={args.experiment.absolute().name}"]
    options += [f"--inference_config={args.inference_config}"] if args.inference_config else []
    options += [f"--inference_args={args.inference_args} --temperature {temperature}"]
    options += ["--leave_out", *args.leave_out] if args.leave_out else []
    options += [f"--length_tolerance={settings['feats_extract_conf']['hop_length']}"]
    evaluate.main(options)
    return json.loads((folder / "scoring" / "scores.json").read_text(encoding="utf-8"))


class Scored(NamedTuple):
    """What a sweep measures.

    Attributes:
        results: Set and temperature -> columns.
        natural: Set -> row of the natural speech, where it has figures.
        made_of: What the table and the picture are of, as it is kept beside them.
    """

    results: dict[tuple[str, float], list[Column]]
    natural: dict[str, Row]
    made_of: dict[str, dict[str, str]]


def score_all(args: argparse.Namespace) -> Scored:
    """Synthesise and score all sets at all temperatures."""
    from flowavenet_plugin.data.provenance import file_checksum
    from flowavenet_plugin.evaluation.table import Column, Row

    done = Scored({}, {}, {})
    for dataset in args.sets:
        for temperature in sorted(set(args.temperatures)):
            decoded = decode(args, temperature, dataset)
            scores = score(args, temperature, dataset, decoded)
            path = decoded / "scoring" / "scores.json"
            done.made_of["sweep"] = {"weights": scores["weights"]}  # of all
            done.made_of[quote(str(path.relative_to(args.experiment)))] = {"scores": file_checksum(path)}
            done.results[dataset, temperature] = [Column(**column) for column in scores["systems"][0]["columns"]]
        if scores["natural_columns"]:
            columns = [Column(**column) for column in scores["natural_columns"]]
            done.natural[dataset] = Row(f"{dataset} natural", len(scores["natural"]), columns, natural=True)
    return done


def sweep(args: argparse.Namespace, command: Sequence[str]) -> str:
    """Synthesise, score, and write table and picture.

    Returns:
        The table, in Markdown.

    Raises:
        ValueError: If a temperature is negative.
        OSError: If a file is missing.
    """
    from flowavenet_plugin.data.provenance import MADE_OF, write_sources
    from flowavenet_plugin.data.scp import atomic_open
    from flowavenet_plugin.evaluation.pictures import draw_sweep
    from flowavenet_plugin.evaluation.report import results_markdown
    from flowavenet_plugin.evaluation.scores import check_names
    from flowavenet_plugin.evaluation.table import Row, markdown

    check_names(args.leave_out, "--leave_out")
    bad = [temperature for temperature in args.temperatures if not 0 <= temperature < math.inf]
    if bad:
        raise ValueError(f"--temperatures: {bad[0]}, a number of at least 0 is wanted")
    args.experiment = args.experiment or args.model_file.parent
    results, natural, made_of = score_all(args)
    rows = [
        Row(f"{dataset} temperature {temperature:g}", max(len(column.values) for column in columns), columns)
        for (dataset, temperature), columns in results.items()
    ]
    table, folder = markdown([*rows, *natural.values()]), args.experiment / "sweep"
    (folder / MADE_OF).unlink(missing_ok=True)  # a picture without it is nobody's
    with atomic_open(folder / "sweep.png") as file:
        draw_sweep(points(results), natural_means(natural)).savefig(file, format="png")
    write_sources(folder, made_of)
    notes = "\n".join(["Best temperatures:", "", *best(results)])
    with atomic_open(folder / "sweep.md") as file:
        file.write(results_markdown(args.experiment.absolute().name, table, notes, command).encode())
    return table


def natural_means(natural: Mapping[str, Row]) -> dict[tuple[str, str], float]:
    """Return heading and set -> mean of the natural speech."""
    from flowavenet_plugin.evaluation.metrics import summarise

    return {
        (column.heading, dataset): summarise(list(column.values.values())).mean
        for dataset, row in natural.items()
        for column in row.columns
        if column.values
    }


def points(results: dict[tuple[str, float], list[Any]]) -> dict[str, dict[str, list[tuple[float, float, float]]]]:
    """Turn columns of (set, temperature) into heading -> set -> (temperature, mean, half width of its interval)."""
    from flowavenet_plugin.evaluation.metrics import summarise

    found: dict[str, dict[str, list[tuple[float, float, float]]]] = {}
    for (dataset, temperature), columns in results.items():
        for column in columns:
            if column.name in _DRAWN and column.values:
                mean, half_width, _ = summarise(list(column.values.values()))
                found.setdefault(column.heading, {}).setdefault(dataset, []).append((temperature, mean, half_width))
    return found


def best(results: dict[tuple[str, float], list[Any]]) -> list[str]:
    """Name the temperature of the best mean of each figure and set, as a Markdown list."""
    more = {column.heading: column.more_is_better for columns in results.values() for column in columns}
    return [
        f"- {heading}: "
        + ", ".join(
            f"{(max if more[heading] else min)(curve, key=lambda point: point[1])[0]:g} ({dataset})"
            for dataset, curve in sets.items()
        )
        for heading, sets in points(results).items()
    ]


def main(cmd: Sequence[str] | None = None) -> None:
    """Entry point; exits with 1 and one line on stderr when the input is bad."""
    cmd = sys.argv[1:] if cmd is None else cmd
    args = get_parser().parse_args(cmd)
    logging.basicConfig(level="INFO", format="%(asctime)s (%(module)s:%(lineno)d) %(levelname)s: %(message)s")
    try:
        table = sweep(args, ["python", "-m", "flowavenet_plugin.bin.sweep", *cmd])
    except (ValueError, OSError) as error:
        sys.exit(f"sweep: error: {error}")
    print(table)
    logging.info(f"sweep.md and sweep.png are in {args.experiment}/sweep")


if __name__ == "__main__":
    main()
