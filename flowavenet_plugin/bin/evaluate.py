"""Compare synthesised with natural speech: results.md, figures per utterance, scores.json and a picture.

All metrics of docs/scoring.md whose packages are installed; log-likelihood of the natural speech with --model_file and
--feats_scp; real-time factor with --utt2rtf; the loss curve with --train_log. Other systems join the table with
--compare. The files that VERSA's scorer reads are written, and its results merged once they are there.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

# numpy, librosa, matplotlib and torch are imported where they are used: --help and wrong options answer at once.
if TYPE_CHECKING:
    from flowavenet_plugin.bin.scoring import System
    from flowavenet_plugin.evaluation.table import Column
    from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder


def get_parser() -> argparse.ArgumentParser:
    """Options of this command."""
    parser = argparse.ArgumentParser(prog="evaluate", description=__doc__)
    parser.add_argument("--ref_scp", type=Path, required=True, help="wav.scp of the natural speech")
    parser.add_argument("--gen_scp", type=Path, required=True, help="wav.scp of the synthesised speech")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for the results")
    parser.add_argument("--model_file", type=Path, help="weights, for the log-likelihood; config.yaml lies beside")
    parser.add_argument(
        "--feats_scp",
        type=Path,
        help="features of the natural speech, for the log-likelihood and sound without a network",
    )
    parser.add_argument("--utt2rtf", type=Path, help="real-time factors that the synthesis wrote")
    parser.add_argument("--train_log", type=Path, help="train.log of the experiment, for the loss curve")
    parser.add_argument("--text", type=Path, help="transcripts, for VERSA")
    parser.add_argument("--inference_config", type=Path, help="options of the synthesis, to be shown: its --config")
    parser.add_argument("--inference_args", default="", help="and the options of its command line")
    parser.add_argument("--title", help="heading of the results (default: the folder of the model)")
    parser.add_argument("--num_plots", type=int, default=2, help="utterances in the picture (default: %(default)s)")
    parser.add_argument(
        "--compare",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="another system, a wav.scp or a folder of wavs; may be given several times",
    )
    parser.add_argument(
        "--mel_inversion",
        action="store_true",
        help="another system: the vocoder without weights, of --feats_scp (feats_extract.yaml beside)",
    )
    parser.add_argument(
        "--griffin_lim",
        action="store_true",
        help="another system: Griffin-Lim of --feats_scp (feats_extract.yaml beside)",
    )
    parser.add_argument(
        "--length_tolerance",
        type=int,
        help="samples by which the lengths of a pair may differ (default: a hop of the model, 20 ms without model)",
    )
    parser.add_argument(
        "--leave_out", nargs="+", default=[], metavar="FIGURE", help="figures not to measure, as in utt2<figure>"
    )
    parser.add_argument("--ngpu", type=int, default=0, help="1: log-likelihood on the GPU (default: CPU)")
    parser.add_argument(
        "--log_level", default="INFO", choices=("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG"), help="verbosity"
    )
    return parser


def check_options(args: argparse.Namespace) -> None:
    """Refuse options that make no sense together.

    Raises:
        ValueError: With the options.
    """
    from flowavenet_plugin.bin.baseline import BASELINES

    if args.model_file is not None and args.feats_scp is None:
        raise ValueError("--model_file and --feats_scp belong together: the log-likelihood needs both")
    without_network = [name for name in BASELINES if getattr(args, name)]
    if args.feats_scp is not None and args.model_file is None and not without_network:
        raise ValueError("--model_file and --feats_scp belong together: the log-likelihood needs both")
    if without_network and args.feats_scp is None:
        raise ValueError(f"--{without_network[0]} needs --feats_scp: it synthesises from the features")
    if args.num_plots < 1:
        raise ValueError(f"--num_plots is {args.num_plots}, at least 1 is wanted")
    if args.leave_out:
        from flowavenet_plugin.evaluation.scores import check_names

        check_names(args.leave_out, "--leave_out")
    names = [spec.partition("=")[0] for spec in args.compare] + without_network
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"--compare: the name '{twice[0]}' is there {names.count(twice[0])} times")


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


def likelihood_columns(nats: Mapping[str, float]) -> list[Column]:
    """Log-likelihoods in nats and in bits (nats / ln 2); none if there are none."""
    from flowavenet_plugin.evaluation.table import Column

    bits = {utt: value / math.log(2.0) for utt, value in nats.items()}
    columns = [
        Column("log_likelihood", "log-likelihood (nats/sample)", True, nats),
        Column("log_likelihood_bits", "log-likelihood (bits/sample)", True, bits),
    ]
    return columns if nats else []


def evaluate(args: argparse.Namespace, command: Sequence[str]) -> str:
    """Measure, then write everything: a failure before that leaves earlier results as they are.

    Returns:
        The table, in Markdown.

    Raises:
        ValueError: On bad input; with the utterance and the numbers.
        FileNotFoundError: If a file is missing.
    """
    from flowavenet_plugin.bin import scoring, scoring_files
    from flowavenet_plugin.bin.baseline import BASELINES, baseline_system
    from flowavenet_plugin.bin.features_now import feats_sources, to_scores
    from flowavenet_plugin.bin.model_figures import read_real_time_factors
    from flowavenet_plugin.bin.sources import weights_checksum
    from flowavenet_plugin.data.scp import read_scp

    check_options(args)
    natural, synthesised = scoring.read_lists(args.ref_scp, args.gen_scp)
    settings, options = decoding_settings(args.inference_config, args.inference_args, args.model_file)
    weights = weights_checksum(args.model_file) if args.model_file else None
    systems, sources = find_systems(args, natural, synthesised, weights, options)
    factors = {}
    if args.utt2rtf:
        every = read_real_time_factors(args.utt2rtf, read_scp(args.gen_scp), args.gen_scp)
        factors = {utt: factor for utt, factor in every.items() if utt in natural}
    device, vocoder, tolerance = "cuda" if args.ngpu else "cpu", None, args.length_tolerance
    if args.model_file:
        from flowavenet_plugin import load_vocoder

        vocoder = load_vocoder(args.model_file, device=device, refine=0)
        tolerance = vocoder.hop_length if tolerance is None else tolerance
    for name in BASELINES:
        if getattr(args, name):
            system, made_of = baseline_system(name, args.feats_scp, args.output_dir, list(natural))
            systems.append(system)
            sources.append(made_of)
    found = scoring.compare(natural, systems, tolerance, args.leave_out)
    likelihoods = measure_with(vocoder, args, natural, found, device) if vocoder is not None else {}
    of_likelihoods = feats_sources(args.feats_scp, list(natural)) if likelihoods else {}
    warn_of_other_features(of_likelihoods, sources[0])
    refinements = {source.get("refine", "0") for source in sources[0].values()}
    if len(refinements) == 1:
        settings = {**settings, "refine": int(refinements.pop())}
    made_by = scoring_files.made_by(args.model_file, weights, sources[0], len(synthesised))
    return scoring_files.write(
        args,
        natural,
        systems,
        found,
        likelihood_columns(likelihoods),
        factors,
        settings=settings,
        made_by={**made_by, "features": to_scores([of_likelihoods, *sources])},
        command=command,
    )


def warn_of_other_features(
    likelihoods: Mapping[str, Mapping[str, str]], sounds: Mapping[str, Mapping[str, str]]
) -> None:
    """Say where likelihoods are of other features than the sounds beside them in the table; a TTS model's always are.

    Args:
        likelihoods: Utterance -> source of its likelihood.
        sounds: Utterance -> source of its sound, as far as it is known.
    """
    for utt, source in likelihoods.items():
        other = sounds.get(utt, source)
        if "stats" not in other and other.get("feats", source["feats"]) != source["feats"]:
            logging.warning(
                f"{utt}: the sound is of features with the checksum {other['feats']}, the log-likelihood of others in "
                f"--feats_scp, {source['feats']}: the table has both"
            )
            return


def find_systems(
    args: argparse.Namespace,
    natural: Mapping[str, str],
    synthesised: dict[str, str],
    weights: str | None,
    options: Mapping[str, str],
) -> tuple[list[System], list[dict[str, dict[str, str]]]]:
    """Find the systems that are there, the one that the results are of first, and refuse sounds that aren't of now.

    Args:
        args: Options of this command.
        natural: Utterance id -> file.
        synthesised: The same of the first system.
        weights: Checksum of the weights that it has to be of; None: any.
        options: Options that it has to be of, as far as they are known.

    Returns:
        The systems, and what is known of the sounds of each: utterance -> source.

    Raises:
        ValueError: If a system has no such utterances, or its sounds aren't of now.
        FileNotFoundError: If a file is missing.
    """
    from flowavenet_plugin.bin import scoring
    from flowavenet_plugin.bin.sources import check_decoding

    systems = [scoring.System("", args.gen_scp, synthesised)]
    sources = [check_decoding(synthesised, weights, options)]
    for spec in args.compare:
        systems.append(scoring.find_system(spec, list(natural), args.ref_scp.absolute().parent.name))
        try:
            sources.append(check_decoding(systems[-1].wavs, None, {}))
        except ValueError as error:
            raise ValueError(f"--compare {spec}: {error}") from error
    return systems, sources


def measure_with(vocoder: AbsVocoder, args: argparse.Namespace, natural: dict, found: Any, device: str) -> dict:
    """Log-likelihoods by a vocoder, none if its class has none; see :func:`measure_likelihoods`."""
    if found.fs != vocoder.fs:
        raise ValueError(f"{next(iter(natural))}: {found.fs} Hz, but the model {args.model_file} has {vocoder.fs} Hz")
    if not has_likelihood(vocoder):
        logging.warning(f"no log-likelihood: {type(vocoder).__name__} has none")
        return {}
    return measure_likelihoods(vocoder, natural, args.feats_scp, found.samples, device)


def decoding_settings(
    config: Path | None, arguments: str, model_file: Path | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Read how the synthesis is run, as far as its options are given here.

    Returns:
        Temperature and seed, to be shown; and all options that the sound depends on, as they are kept beside it.

    Raises:
        FileNotFoundError: If there is no such configuration.
    """
    if config is None and not arguments:
        return {}, {}
    from flowavenet_plugin.bin import vocoder_inference
    from flowavenet_plugin.bin.sources import sound_options
    from flowavenet_plugin.vocoder.loading import unpacked

    if config is not None and not config.is_file():
        raise FileNotFoundError(f"--inference_config: no such file: {config}")
    command = [] if config is None else ["--config", str(config)]
    command += ["--scp=-", "--model_file=-", "--output_dir=-", *vocoder_inference.split_arguments(arguments)]
    options = vocoder_inference.parse_args(command)
    shown = {"temperature": options.temperature, "seed": options.seed}
    if model_file is None:
        return shown, sound_options(options, None)
    with unpacked(model_file) as weights:
        return shown, sound_options(options, weights.parent / "config.yaml")


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
