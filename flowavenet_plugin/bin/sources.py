"""Is a sound, or are its scores, of the features, weights and options of now? Not a command itself."""

from __future__ import annotations

import argparse
import inspect
import json
import logging
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    import numpy as np

#: What of a configuration makes the sound.
_SETTINGS = ("vocoder", "vocoder_conf", "feats_extract", "feats_extract_conf")


def weights_checksum(model_file: Path, config_file: Path | None = None) -> str:
    """Return the checksum of a vocoder: weights and the settings that make a model of them; packed or not, the same.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the configuration is none of a vocoder, or a packed model is broken.
    """
    from flowavenet_plugin.data.provenance import checksum, file_checksum
    from flowavenet_plugin.vocoder.loading import read_config, unpacked

    if not model_file.exists():
        raise FileNotFoundError(f"no checkpoint at {model_file}")
    with unpacked(model_file) as weights:
        config = read_config(config_file or weights.parent / "config.yaml")
        settings = json.dumps([config[name] for name in _SETTINGS], sort_keys=True)
        return checksum(file_checksum(weights).encode(), settings.encode())


def sound_options(args: argparse.Namespace, config_file: Path | None) -> dict[str, str]:
    """Return the options of ``vocoder_inference`` that the sound depends on: name -> value, each a word.

    Batches and jobs change nothing. A temperature or a refinement that isn't given is the model's own.

    Args:
        args: Options of ``vocoder_inference``.
        config_file: Configuration of the model; None: not known, and then what isn't given isn't either.
    """
    options = {"seed": str(args.seed), "dtype": "float32" if args.dtype == "auto" else args.dtype}
    options["denoiser"] = repr(float(args.denoiser_strength))
    own = None if config_file is None else _Own(config_file)
    if args.temperature is not None:
        options["temperature"] = repr(float(args.temperature))
    elif own is not None:
        options["temperature"] = own.temperature
    if args.refine is not None:
        options["refine"] = str(args.refine)
    elif own is not None:
        options["refine"] = own.refine
    if own is not None:
        exact = own.exact_stream and options["refine"] == "0"
        options["chunk_frames"] = "0" if exact else str(args.chunk_frames)
    return options


class _Own:
    """What a model's configuration says of its sound.

    Attributes:
        temperature: Its own temperature, "own" if it has none.
        refine: Iterations of its own refinement.
        exact_stream: Whether chunks change nothing.
    """

    def __init__(self, config_file: Path) -> None:
        from flowavenet_plugin.vocoder.loading import read_config
        from flowavenet_plugin.vocoder.registry import VOCODERS

        config = read_config(config_file)
        known = VOCODERS.get(config["vocoder"])
        defaults = {} if known is None else inspect.signature(known).parameters
        values = {name: parameter.default for name, parameter in defaults.items()} | config["vocoder_conf"]
        value = values.get("temperature")
        self.temperature = repr(float(value)) if isinstance(value, (int, float)) else "own"
        self.refine = str(config.get("refine", 0))
        self.exact_stream = True if known is None else known.exact_stream


class Making:
    """How ``vocoder_inference`` makes sounds now.

    Args:
        args: Its options.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        from flowavenet_plugin.vocoder.loading import unpacked

        self._common = {"weights": weights_checksum(args.model_file, args.train_config)}
        with unpacked(args.model_file) as weights:
            self._common |= sound_options(args, args.train_config or weights.parent / "config.yaml")
        places = {"model": args.model_file, "scp": args.scp or args.tts_dir}
        self._places = {name: quote(str(path.absolute())) for name, path in places.items()}

    def wanted(self, feats: np.ndarray) -> dict[str, str]:
        """Return what a sound of features, shape (frames, n_mels), has to be made of."""
        from flowavenet_plugin.data.provenance import feats_checksum

        return {"feats": feats_checksum(feats), **self._common}

    def source(self, feats: np.ndarray, path: Path) -> dict[str, str]:
        """Return how a sound, which was just written, was made: also from where, which doesn't matter for it."""
        from flowavenet_plugin.data.provenance import file_checksum

        return {"sound": file_checksum(path), **self.wanted(feats), **self._places}


def place(source: Mapping[str, str], name: str) -> Path | None:
    """Return the path of weights (``model``) or list (``scp``) that a sound was made of."""
    return Path(unquote(source[name])) if name in source else None


def check_decoding(
    wavs: Mapping[str, str], gen_scp: Path, weights: str | None, feats_scp: Path | None, options: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """Refuse to score sounds that aren't of now.

    Args:
        wavs: Utterance -> file.
        gen_scp: Their list; what they were made of lies in the folder above, if ``vocoder_inference`` made them.
        weights: Checksum of the weights that the scores are of; None: any.
        feats_scp: Features of now; compared where the sounds were made from this list.
        options: Options of now that the sound depends on, as far as they are known.

    Returns:
        What is known of the sounds: utterance -> source.

    Raises:
        ValueError: If a sound is of other features, weights or options; with both values.
    """
    from flowavenet_plugin.data.provenance import check_sources, feats_checksum, read_sources
    from flowavenet_plugin.data.scp import open_feats

    folder = gen_scp.absolute().parent.parent
    recorded = read_sources(folder)
    if not recorded and (folder / "utt2rtf").exists():
        logging.warning(
            f"{folder} doesn't tell what its sounds were made of: they aren't compared with what is there now"
        )
    feats = open_feats(feats_scp) if feats_scp is not None and recorded else {}
    wanted: dict[str, dict[str, str]] = {}
    for utt in wavs:
        wanted[utt] = dict(options) if weights is None else {"weights": weights, **options}
        listed = place(recorded.get(utt, {}), "scp")
        if feats_scp is not None and listed is not None and _same_file(listed, feats_scp) and utt in feats:
            wanted[utt]["feats"] = feats_checksum(feats[utt])
    check_sources(wavs, recorded, wanted, folder)
    return {utt: recorded[utt] for utt in wavs if utt in recorded}


def _same_file(first: Path, second: Path) -> bool:
    """Compare two paths, which may be spelt in several ways; a file that is gone is no other's."""
    return first.absolute() == second.absolute() or (first.exists() and second.exists() and first.samefile(second))


def _weights_now(model_file: Path) -> str | None:
    if not model_file.exists():
        return None
    stat = model_file.stat()
    return _weights_at(model_file, (stat.st_mtime_ns, stat.st_size, stat.st_ino))


@cache
def _weights_at(model_file: Path, _stat: tuple[int, ...]) -> str:
    """Return :func:`weights_checksum`, once for all sets of an experiment."""
    return weights_checksum(model_file)


def outdated(scores: Mapping[str, Any]) -> str | None:
    """Return why scores aren't of now, None: they are.

    Args:
        scores: The content of a scores.json.
    """
    if "weights" not in scores or "checksums" not in scores:
        return "they are of an older version, which doesn't tell what of"
    model_file = scores["model_file"]
    if model_file and scores["weights"] and (now := _weights_now(Path(model_file))) not in (scores["weights"], None):
        return f"they are of weights {scores['weights']}, but {model_file} holds {now}"
    for wavs, checksums in _audio(scores):
        from flowavenet_plugin.data.provenance import changed_audio

        there = [utt for utt in wavs if Path(wavs[utt]).is_file()]  # what is gone is told where it is missed
        if changed := changed_audio(wavs, checksums, there):
            return f"{wavs[changed[0]]} isn't the audio that was scored ({len(changed)} of {len(wavs)} utterances)"
    return None


def _audio(scores: Mapping[str, Any]) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Give files and checksums of the natural speech and of each system, as they were scored."""
    yield scores["natural"], scores["checksums"]
    for system in scores["systems"]:
        yield system["wavs"], system["checksums"]
