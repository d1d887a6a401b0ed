"""Pack a trained vocoder into one archive of ESPnet2's format, with its model card beside it.

The archive holds ``meta.yaml``, ``config.yaml``, the weights, the statistics of the features, ``README.md`` (the card)
and a sample, and can be given wherever weights can. ESPnet2's ``unpack`` returns ``vocoder_file`` and
``vocoder_config``, the names of ``Text2Speech``'s arguments.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml


def get_parser() -> argparse.ArgumentParser:
    """Options of this command."""
    parser = argparse.ArgumentParser(
        prog="pack", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model_file", type=Path, required=True, help="weights, e.g. exp/voc_x/valid.loss.best.pth")
    parser.add_argument("--train_config", type=Path, help="their configuration (default: config.yaml beside them)")
    parser.add_argument("--outpath", type=Path, required=True, help="archive to write, a .zip")
    parser.add_argument(
        "--feats_stats",
        type=Path,
        help="feats_stats.npz of the training features, which must be the vocoder's (default: made from the vocoder)",
    )
    parser.add_argument("--results_dir", type=Path, help="folder of the decoded sets, for results and the sample")
    parser.add_argument("--title", help="name of the model (default: the archive's)")
    parser.add_argument("--corpus", default="unknown", help="name of the corpus")
    parser.add_argument("--notes", type=Path, help="Markdown for the card: data, training, limits")
    parser.add_argument(
        "--refine", type=int, help="iterations of refinement that this voice has by default (default: as configured, 0)"
    )
    parser.add_argument("--lang", help="language of the corpus, as an ISO 639 code")
    return parser


def collect(args: argparse.Namespace, folder: Path) -> list[str]:
    """Lay out the archive's content.

    Args:
        args: Command line.
        folder: Empty folder to fill.

    Returns:
        Names of the files beside weights and configuration.

    Raises:
        ValueError: If the weights don't fit the configuration, or statistics or results aren't theirs.
        OSError: If a file can't be read.
    """
    from flowavenet_plugin.bin.packed_stats import pack_stats
    from flowavenet_plugin.bin.sources import weights_checksum
    from flowavenet_plugin.data.text import read_text
    from flowavenet_plugin.evaluation.model_card import model_card
    from flowavenet_plugin.vocoder.loading import load_vocoder, read_config

    config_file = args.train_config or args.model_file.parent / "config.yaml"
    refine = read_config(config_file).get("refine", 0) if args.refine is None else args.refine
    vocoder = load_vocoder(args.model_file, config_file, refine=refine)  # which checks it, too
    copy_weights(args.model_file, folder / args.model_file.name, vocoder.training_only)
    config = read_config(config_file)
    # ESPnet2's unpack turns names of packed files into their new paths; the old path would mean nothing elsewhere.
    config["feats_stats"] = pack_stats(args.model_file, vocoder, args.feats_stats, folder)
    config.pop("refine", None)
    if refine:
        config["refine"] = refine
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    tables = ""
    if args.results_dir is not None:
        tables = copy_results(args.results_dir, folder, weights_checksum(args.model_file, config_file), refine)
    card = model_card(
        title=args.title or args.outpath.stem,
        archive=args.outpath.name,
        config=config,
        parameters=sum(parameter.numel() for parameter in vocoder.parameters()),
        corpus=args.corpus,
        language=args.lang,
        tables=tables,
        sample=(folder / "sample.wav").exists(),
        notes="" if args.notes is None else read_text(args.notes),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    return sorted({path.name for path in folder.iterdir()} - {"config.yaml", args.model_file.name})


def copy_weights(model_file: Path, target: Path, training_only: Sequence[str]) -> None:
    """Copy weights, byte by byte unless they hold parts that only training has: those are left out.

    Args:
        model_file: The file, which can be read.
        target: File to write.
        training_only: How the names of such parts begin.
    """
    import torch

    from flowavenet_plugin.vocoder.loading import read_state_dict

    states = read_state_dict(model_file)
    kept = {name: value for name, value in states.items() if not name.startswith(tuple(training_only))}
    if len(kept) == len(states):
        shutil.copyfile(model_file, target)
    else:
        torch.save(kept, target)


def copy_results(results_dir: Path, folder: Path, weights: str, refine: int) -> str:
    """Take the first utterance of the last set as the sample, with that set's picture; return all sets' tables.

    Raises:
        ValueError: If results are of other weights or another refinement, or of other audio or features than are there
            now.
    """
    rows: list[str] = []
    for results in sorted(results_dir.glob("*/scoring/results.md")):
        scores = check_results(results.with_name("scores.json"), weights, refine)
        lines = [line for line in results.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
        rows += [line for line in lines if line not in rows]  # one heading for all sets
        shutil.copyfile(next(iter(scores["systems"][0]["wavs"].values())), folder / "sample.wav")
        if (picture := results.with_name("samples.png")).exists():
            shutil.copyfile(picture, folder / "samples.png")
    return "".join(f"{row}\n" for row in rows)


def check_results(path: Path, weights: str, refine: int) -> dict[str, Any]:
    """Refuse scores that aren't of these weights, refined as often, and of the audio and features that are there.

    Returns:
        The scores.

    Raises:
        ValueError: With the reason.
    """
    from flowavenet_plugin.bin.report_scores import read_scores
    from flowavenet_plugin.bin.sources import outdated

    what = "Decode and score again (run.sh: --stage 3), or pack without --results_dir"
    if not path.is_file():
        raise ValueError(f"{path} is missing: it would tell which weights the results are of. {what}")
    scores = read_scores(path)
    why = outdated(scores)
    if why is None and scores["weights"] != weights:
        why = f"they are of weights {scores['weights']}, those to be packed are {weights}"
    elif why is None and scores["settings"].get("refine", 0) != refine:
        why = f"they are of sound with {scores['settings'].get('refine', 0)} refinements, the packed voice has {refine}"
    if why is not None:
        raise ValueError(f"the results of {path} aren't of now: {why}. {what}")
    return scores


@contextlib.contextmanager
def working_folder(folder: Path) -> Iterator[None]:
    """Work in another folder for a while."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def card_path(outpath: Path) -> Path:
    """Return where the model card of an archive goes."""
    return outpath.with_name(f"{outpath.stem}_README.md")


def main(cmd: Sequence[str] | None = None) -> None:
    """Pack as the command line says; input that can't be used ends with one line and exit status 1.

    Args:
        cmd: Arguments; default: those of the process.
    """
    args = get_parser().parse_args(cmd)
    try:
        pack(args)
        print(f"{args.outpath}\n{card_path(args.outpath)}")
    except (ValueError, OSError) as error:
        sys.exit(f"pack: error: {error}")


def pack(args: argparse.Namespace) -> None:
    """Write the archive and, beside it, the model card; see :func:`main`."""
    from espnet2.main_funcs import pack_funcs

    if args.outpath.suffix != ".zip":
        raise ValueError(f"--outpath {args.outpath} must end in .zip")
    if args.model_file.name == "checkpoint.pth":
        raise ValueError(f"{args.model_file} holds the optimiser, too: pack weights, such as latest.pth beside it")
    args.outpath = args.outpath.absolute()
    args.outpath.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".pack.", dir=args.outpath.parent) as name:
        content, archive = Path(name) / "content", Path(name) / args.outpath.name
        content.mkdir()
        options: list[Any] = collect(args, content)
        # Members are called as files are from here, without the experiment's path; ESPnet2 prints each.
        with working_folder(content), contextlib.redirect_stdout(io.StringIO()):
            pack_funcs.pack(
                files=dict(vocoder_file=args.model_file.name),
                yaml_files=dict(vocoder_config="config.yaml"),
                option=options,
                outpath=archive,
            )
        os.replace(content / "README.md", card_path(args.outpath))
        os.replace(archive, args.outpath)


if __name__ == "__main__":
    main()
