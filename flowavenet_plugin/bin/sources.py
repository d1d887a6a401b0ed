"""Is a sound, or are its scores, of the features, weights and options of now? Not a command itself."""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from flowavenet_plugin.bin.features_now import FeaturesNow, changed_feats, feats_place

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
        stats = None if args.tts_dir is None else args.tts_stats
        self._places = {"model": quote(str(args.model_file.absolute())), **feats_place(args.scp or args.tts_dir, stats)}

    def wanted(self, feats: np.ndarray) -> dict[str, str]:
        """Return what a sound of features, shape (frames, n_mels), has to be made of."""
        from flowavenet_plugin.data.provenance import feats_checksum

        return {"feats": feats_checksum(feats), **self._common}

    def source(self, feats: np.ndarray, path: Path) -> dict[str, str]:
        """Return how a sound, which was just written, was made: also from where, which doesn't matter for it."""
        from flowavenet_plugin.data.provenance import file_checksum

        return {"sound": file_checksum(path), **self.wanted(feats), **self._places}


def check_decoding(
    wavs: Mapping[str, str], weights: str | None, options: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    """Refuse to score sounds that aren't of now.

    Args:
        wavs: Utterance -> file; what it was made of lies in the folder above, if it was made here.
        weights: Checksum of the weights that the scores are of; None: any.
        options: Options of now that the sound depends on, as far as they are known.

    Returns:
        What is known of the sounds: utterance -> source.

    Raises:
        ValueError: If a sound is of other weights or options, or of features that have changed since, with both values;
            or of a folder that was decoded here and doesn't tell what of, though weights are given.
    """
    from flowavenet_plugin.data.provenance import check_sources, read_sources

    now, known = FeaturesNow(), {}
    for folder in dict.fromkeys(filter(None, map(_folder_of, wavs.values()))):
        recorded = read_sources(folder)
        if weights is not None and (recorded or (folder / "utt2rtf").exists()):
            _check_all_known([utt for utt, path in wavs.items() if _folder_of(path) == folder], recorded, folder)
        own = {utt: path for utt, path in wavs.items() if utt in recorded and _folder_of(path) == folder}
        wanted = {utt: {**options, **now.of(recorded[utt], utt)} for utt in own}
        if weights is not None:
            wanted = {utt: {"weights": weights, **names} for utt, names in wanted.items()}
        check_sources(own, recorded, wanted, folder)
        known.update((utt, recorded[utt]) for utt in own)
    return known


def _check_all_known(utts: Sequence[str], recorded: Mapping[str, Any], folder: Path) -> None:
    from flowavenet_plugin.data.provenance import MADE_OF

    if unknown := [utt for utt in utts if utt not in recorded]:
        raise ValueError(
            f"{unknown[0]}: {folder / MADE_OF} doesn't tell what its sound was made of ({len(unknown)} of {len(utts)} "
            "utterances). Decode again (run.sh: --stage 3)"
        )


def _folder_of(path: str) -> Path | None:
    """Return the folder of decoded sounds that has this one as wav/*.wav; None: it isn't in such a folder."""
    folder = Path(path).absolute().parent
    return folder.parent if folder.name == "wav" else None


def _weights_now(model_file: Path) -> str | None:
    if not model_file.exists():
        return None
    stat = model_file.stat()
    return _weights_at(model_file, (stat.st_mtime_ns, stat.st_size, stat.st_ino))


@cache
def _weights_at(model_file: Path, _stat: tuple[int, ...]) -> str:
    """Return :func:`weights_checksum`, once for all sets of an experiment."""
    return weights_checksum(model_file)


def outdated(scores: Mapping[str, Any], experiment: Path | None = None) -> str | None:
    """Return why scores aren't of now, None: they are.

    What is gone (weights, features, audio) says nothing: it is told where it is missed.

    Args:
        scores: The content of a scores.json.
        experiment: The folder that they are in now: weights that aren't where they were are looked for in it.
    """
    if any(key not in scores for key in ("weights", "checksums", "features")):
        return "they are of an older version, which doesn't tell what of"
    model_file = scores["model_file"]
    if model_file and experiment is not None and not Path(model_file).exists():
        model_file = experiment / Path(model_file).name
    if model_file and scores["weights"] and (now := _weights_now(Path(model_file))) not in (scores["weights"], None):
        return f"they are of weights {scores['weights']}, but {model_file} holds {now}"
    for wavs, checksums in _audio(scores):
        if (why := _changed_audio(wavs, checksums)) is not None:
            return why
    return changed_feats(scores["features"])


def _changed_audio(wavs: Mapping[str, str], checksums: Mapping[str, str]) -> str | None:
    from flowavenet_plugin.data.provenance import changed_audio, file_checksum

    changed = changed_audio(wavs, checksums, [utt for utt in wavs if Path(wavs[utt]).is_file()])
    if not changed:
        return None
    utt, path = changed[0], wavs[changed[0]]
    return (
        f"{utt}: {path} isn't the audio that was scored: its checksum is {file_checksum(path)}, but was "
        f"{checksums.get(utt)} ({len(changed)} of {len(wavs)} utterances)"
    )


def _audio(scores: Mapping[str, Any]) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    """Give files and checksums of the natural speech and of each system, as they were scored."""
    yield scores["natural"], scores["checksums"]
    for system in scores["systems"]:
        yield system["wavs"], system["checksums"]
