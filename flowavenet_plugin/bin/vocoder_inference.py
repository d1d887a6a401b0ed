"""Turn features into sound: feats.scp -> wav/*.wav, wav/wav.scp and the real-time factor of each utterance.

What is there already is left as it is, so that a stopped run goes on where it was; but what was made of other features,
by other weights or with other options (``made_of`` tells) is made anew. Several runs with different
``--key_file`` may write into one folder at once.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from espnet2.utils.types import float_or_none, int_or_none, str2bool

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from flowavenet_plugin.bin.sources import Making
    from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder


def get_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="vocoder_inference", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--config", type=Path, help="YAML file with any of these options (conf/decode.yaml)")
    parser.add_argument(
        "--scp", type=Path, help="un-normalised features: feats.scp of ark, npy or HDF5 entries, or an ark"
    )
    parser.add_argument(
        "--tts_dir", type=Path, help="instead: a run of ESPnet2's tts_inference, exp/tts_x/decode_y/eval1"
    )
    parser.add_argument(
        "--tts_stats", help="feats_stats.npz of the TTS model, if its run has norm/ only; none: it doesn't normalise"
    )
    parser.add_argument("--key_file", type=Path, help="only the utterances in the first column of this file")
    parser.add_argument("--model_file", type=Path, help="weights, e.g. exp/voc_x/valid.loss.best.pth")
    parser.add_argument("--train_config", type=Path, help="its configuration (default: config.yaml beside the weights)")
    parser.add_argument("--output_dir", type=Path, help="folder for wav/ and utt2rtf")
    parser.add_argument(
        "--temperature", type=float_or_none, default=None, help="standard deviation of the noise (none: the model's)"
    )
    parser.add_argument(
        "--refine",
        type=int_or_none,
        default=None,
        help="iterations that bring each sound nearer to its features (0: off, none: the model's)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise, together with the features")
    parser.add_argument(
        "--dtype",
        default="auto",
        choices=("auto", "float32", "tf32", "bfloat16"),
        help="precision inside the WaveNets; auto: float32. bfloat16 is faster where the machine has it, tf32 on GPUs",
    )
    parser.add_argument("--batch_size", type=int, default=1, help="utterances of similar length decoded at once")
    parser.add_argument(
        "--chunk_frames",
        type=int,
        default=0,
        help="frames decoded at once; 0: as is fastest. The sound is the same, unless it is refined",
    )
    parser.add_argument(
        "--denoiser_strength", type=float, default=0.0, help="how much of the vocoder's constant tones to take out"
    )
    parser.add_argument(
        "--cuda_graphs", type=str2bool, default=False, help="on a GPU: launch all of an utterance's kernels at once"
    )
    parser.add_argument(
        "--skip_bad_utts",
        type=str2bool,
        default=False,
        help="exit with 0 though utterances can't be decoded, listed in bad_utts",
    )
    parser.add_argument("--ngpu", type=int, default=0, choices=(0, 1), help="number of GPUs")
    parser.add_argument("--log_level", default="INFO", choices=("ERROR", "WARNING", "INFO", "DEBUG"), help="verbosity")
    return parser


def split_arguments(arguments: str) -> list[str]:
    """Split further options of this command, the value of another command's ``--inference_args``.

    Raises:
        ValueError: If a quotation mark isn't closed.
    """
    try:
        return shlex.split(arguments)
    except ValueError as error:
        raise ValueError(f"--inference_args '{arguments}': {error}") from None


def parse_args(cmd: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse; options given on the command line win over those of ``--config``."""
    parser = get_parser()
    given = parser.parse_args(cmd)
    if given.config is not None:
        from flowavenet_plugin.data.settings import read_options

        try:
            options = read_options(given.config)
        except (OSError, ValueError) as error:
            parser.error(f"--config {given.config}: {error}")
        known = {action.dest: action for action in parser._actions if action.dest not in ("config", "help")}
        unknown = sorted(set(options) - set(known))
        if unknown:
            parser.error(f"--config {given.config}: unknown option {', '.join(unknown)}; there are: {', '.join(known)}")
        # Set as text: argparse then converts and checks them like options of the command line.
        parser.set_defaults(**{key: value if value is None else str(value) for key, value in options.items()})
        given = parser.parse_args(cmd)
    if given.scp is not None and given.tts_dir is not None:
        parser.error("--scp and --tts_dir exclude each other")
    if given.scp is None and given.tts_dir is None:
        parser.error("one of --scp and --tts_dir is required")
    missing = [f"--{name}" for name in ("model_file", "output_dir") if getattr(given, name) is None]
    if missing:
        parser.error(f"the following options are required: {', '.join(missing)}")
    return given


def inference(args: argparse.Namespace) -> None:
    """Decode as the command line says.

    Raises:
        ValueError: If lists, features or weights can't be used. What was decoded before stays; of features that can't
            be used all others are decoded first.
        OSError: If a file can't be read or written.
    """
    import torch
    from tqdm import tqdm

    from flowavenet_plugin.bin.decoding import Decoder, batches
    from flowavenet_plugin.bin.sources import Making
    from flowavenet_plugin.data.decoded import update_lists
    from flowavenet_plugin.data.scp import open_feats, read_ids
    from flowavenet_plugin.data.tts_run import GeneratedFeats, check_not_normalised
    from flowavenet_plugin.vocoder.loading import load_vocoder

    if args.ngpu > 0 and not torch.cuda.is_available():
        raise ValueError(f"--ngpu {args.ngpu} is asked for, but torch finds no GPU; --ngpu 0 decodes on the CPU")
    if args.scp is not None:
        check_not_normalised(args.scp)
    feats = open_feats(args.scp) if args.tts_dir is None else GeneratedFeats(args.tts_dir, args.tts_stats)
    keys = list(feats) if args.key_file is None else read_ids(args.key_file)
    if not keys:
        raise ValueError(f"no utterances in {args.key_file or args.scp or args.tts_dir}")
    unknown = [key for key in keys if key not in feats]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(keys)} utterances of {args.key_file} are not in {args.scp or args.tts_dir}: "
            f"{unknown[:5]}"
        )
    making = Making(args)
    bad: dict[str, str] = {}
    todo = to_make(keys, feats, args.output_dir, making, bad)
    rtfs = {}
    if todo:
        vocoder = load_vocoder(args.model_file, args.train_config, "cuda" if args.ngpu else "cpu", args.refine)
        if args.tts_dir is not None:
            check_tts_config(args.tts_dir, vocoder)
        else:
            check_settings_beside(args.scp, vocoder)
        try:
            decode = Decoder(vocoder, args, making)
            with tqdm(total=len(todo), disable=not sys.stderr.isatty(), unit="utt") as progress:
                for names in batches(todo, feats, args.batch_size, bad):
                    rtfs.update(decode_good(decode, feats, names, bad))
                    progress.update(len(names))
        finally:
            tried = [key for key in keys if key in rtfs or key not in todo]
            update_lists(args.output_dir, list(feats), bad, tried)
    else:
        update_lists(args.output_dir, list(feats), bad, keys)
    if rtfs:
        logging.info(f"mean real-time factor (seconds per second of speech): {sum(rtfs.values()) / len(rtfs):.4f}")
    if bad:
        say_bad(bad, len(keys), args)


def decode_good(
    decode: Callable[[Mapping[str, Tensor]], dict[str, float]],
    feats: Mapping[str, np.ndarray],
    keys: Sequence[str],
    bad: dict[str, str],
) -> dict[str, float]:
    """Decode a batch; where utterances of it can't be decoded, the others.

    Args:
        decode: See :class:`Decoder`.
        feats: Features of each utterance.
        keys: Utterances of the batch.
        bad: Gets utterance -> why it can't be decoded.

    Returns:
        Real-time factor of each that was.
    """
    import torch

    batch = {}
    for key in keys:
        try:
            batch[key] = torch.from_numpy(feats[key])
        except ValueError as error:
            note_bad(bad, key, error)
    try:
        return decode(batch) if batch else {}
    except ValueError as error:
        if len(batch) == 1:
            note_bad(bad, next(iter(batch)), error)
            return {}
    found = {}
    for key, item in batch.items():
        found.update(decode_good(decode, {key: item.numpy()}, [key], bad))
    return found


def note_bad(bad: dict[str, str], key: str, error: ValueError) -> None:
    """Note in ``bad`` why an utterance can't be decoded, in one line."""
    why = " ".join(str(error).split())
    bad[key] = why if key in why else f"utterance {key}: {why}"
    logging.error(bad[key])


def say_bad(bad: Mapping[str, str], count: int, args: argparse.Namespace) -> None:
    """Say which utterances couldn't be decoded.

    Raises:
        ValueError: Unless ``--skip_bad_utts true`` allows it and there is a good one.
    """
    first = "; ".join(list(bad.values())[:3])
    what = f"{len(bad)} of {count} utterances can't be decoded ({first}{'; ...' if len(bad) > 3 else ''})"
    listed = args.output_dir / "bad_utts"
    if not args.skip_bad_utts or len(bad) == count:
        raise ValueError(f"{what}; {'none' if len(bad) == count else 'the others'} are decoded, see {listed}")
    logging.warning(f"{what}; see {listed}")


def to_make(
    keys: Sequence[str], feats: Mapping[str, np.ndarray], output_dir: Path, making: Making, bad: dict[str, str]
) -> list[str]:
    """Return the utterances whose sound isn't there, or isn't what would be made now.

    Args:
        keys: Utterances that are asked for.
        feats: Features of each.
        output_dir: Folder of the sounds.
        making: How they would be made.
        bad: Gets utterance -> why it can't be decoded.
    """
    from flowavenet_plugin.data.decoded import wav_path
    from flowavenet_plugin.data.provenance import kept, read_sources

    recorded = read_sources(output_dir)
    todo, old = [], 0
    for key in keys:
        try:
            path = wav_path(output_dir, key)
            there = path.exists()
            if there and key in recorded and kept(path, recorded[key], making.wanted(feats[key])):
                continue
        except ValueError as error:
            note_bad(bad, key, error)
            continue
        todo.append(key)
        old += there
    logging.info(f"{len(keys)} utterances, {len(keys) - len(todo) - len(bad)} of them done before")
    if old:
        logging.info(f"features, weights or options changed: {old} utterances in {output_dir} are decoded anew")
    return todo


def check_settings_beside(scp: Path, vocoder: AbsVocoder) -> None:
    """Compare the settings of features with the vocoder's, where they can be found.

    That is feats_extract.yaml beside the list, as stage 1 writes it; for the list of a run of ESPnet2's
    ``tts_inference`` it is the TTS model's config.yaml.

    Raises:
        ValueError: If they differ; the message is a table.
    """
    from flowavenet_plugin.data.settings import read_settings
    from flowavenet_plugin.tasks.compatibility import check_extracted

    beside = scp.absolute().parent / "feats_extract.yaml"
    if beside.is_file():
        check_extracted(read_settings(beside), vocoder, beside)
    elif scp.absolute().parent.name in ("denorm", "norm"):
        check_tts_config(scp.absolute().parents[1], vocoder)


def check_tts_config(tts_dir: Path, vocoder: AbsVocoder) -> None:
    """Compare the features of the TTS experiment that a run belongs to with the vocoder's, if its config is there.

    Raises:
        ValueError: If they differ; the message is a table.
    """
    from flowavenet_plugin.data.settings import read_options
    from flowavenet_plugin.tasks.compatibility import check_config

    config_file = tts_dir.absolute().parents[1] / "config.yaml"  # exp/tts_x of exp/tts_x/decode_y/eval1
    if config_file.is_file():
        check_config(read_options(config_file), vocoder)
    else:
        logging.info(f"no {config_file}: the TTS model's feature settings were not compared with the vocoder's")


def main(cmd: Sequence[str] | None = None) -> None:
    """Decode as the command line says; input that can't be used ends with one line and exit status 1.

    Args:
        cmd: Arguments; default: those of the process.
    """
    args = parse_args(cmd)
    logging.basicConfig(level=args.log_level, format="%(asctime)s %(levelname)s: %(message)s")
    try:
        inference(args)
    except (ValueError, OSError) as error:
        sys.exit(f"vocoder_inference: error: {error}")


if __name__ == "__main__":
    main()
