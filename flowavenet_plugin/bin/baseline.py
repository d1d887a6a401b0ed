"""Sound without a network as another system in the tables of scores. Not a command itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flowavenet_plugin.bin.scoring import System


class Baseline(NamedTuple):
    """What makes sound of features.

    Attributes:
        fs: Sampling rate in Hz.
        options: What the sound depends on besides features and their settings: name -> value, each a word.
        speak: Un-normalised features (frames, n_mels), float32 -> waveform (samples,).
    """

    fs: int
    options: Mapping[str, str]
    speak: Callable[[Any], Any]


def griffin_lim(kind: str, settings: Mapping[str, Any]) -> Baseline:
    """Griffin-Lim of the mel filters' pseudo-inverse.

    Raises:
        ValueError: If it can't use such features.
    """
    from flowavenet_plugin.evaluation.griffin_lim import ITERATIONS, GriffinLim

    vocoder = GriffinLim(kind, settings)
    return Baseline(vocoder.fs, {"iterations": str(ITERATIONS), "seed": str(vocoder.seed)}, vocoder)


def mel_inversion(kind: str, settings: Mapping[str, Any]) -> Baseline:
    """The vocoder without weights, with its defaults and seed 0.

    Raises:
        ValueError: If it can't use such features.
    """
    import torch

    from flowavenet_plugin.vocoder.mel_inversion_vocoder import VERSION, MelInversionVocoder
    from flowavenet_plugin.vocoder.seeds import noise_seed

    vocoder = MelInversionVocoder(settings["fs"], settings["hop_length"], settings["n_mels"])
    vocoder.set_features(kind, settings)

    def speak(mel: Any) -> Any:
        feats = torch.from_numpy(mel)
        return vocoder.inference(feats, seed=noise_seed(0, feats)).numpy()

    return Baseline(vocoder.fs, {"iterations": str(vocoder.iterations), "seed": "0", "version": str(VERSION)}, speak)


#: Name, also of the option of ``evaluate`` and of the folder -> what makes it.
BASELINES: dict[str, Callable[[str, Mapping[str, Any]], Baseline]] = {
    "mel_inversion": mel_inversion,
    "griffin_lim": griffin_lim,
}


def _speak(baseline: Baseline, mel: Any, what: str) -> Any:
    try:
        return baseline.speak(mel)
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def baseline_system(
    name: str, feats_scp: Path, output_dir: Path, utts: Sequence[str]
) -> tuple[System, dict[str, dict[str, str]]]:
    """Synthesise without a network what isn't there yet, or was made of other features, into ``<name>/wav/``.

    Args:
        name: Of :data:`BASELINES`.
        feats_scp: Features; feats_extract.yaml lies beside.
        output_dir: Folder of the results.
        utts: Utterances wanted.

    Returns:
        The system, and what its sounds are of: utterance -> source.

    Raises:
        ValueError: If features or their settings can't be used.
        OSError: If a file is missing.
    """
    from flowavenet_plugin.bin.features_now import feats_place, settings_checksum
    from flowavenet_plugin.data.decoded import write_wav
    from flowavenet_plugin.data.provenance import (
        add_source,
        feats_checksum,
        file_checksum,
        kept,
        read_sources,
        write_sources,
    )
    from flowavenet_plugin.data.scp import open_feats, write_scp
    from flowavenet_plugin.data.settings import read_feats_settings

    settings = read_feats_settings(feats_scp.parent / "feats_extract.yaml")
    baseline = BASELINES[name](settings["feats_extract"], settings["feats_extract_conf"])
    feats, folder = open_feats(feats_scp), output_dir / name
    wavs = {utt: folder / "wav" / f"{utt}.wav" for utt in utts}
    options = {"settings": settings_checksum(feats_scp), **baseline.options}
    before, now = read_sources(folder), {}
    for utt, path in wavs.items():
        mel = feats[utt]
        wanted = {"feats": feats_checksum(mel), **options}
        if not kept(path, before.get(utt), wanted):
            write_wav(path, _speak(baseline, mel, f"--{name}: utterance {utt}"), baseline.fs)
            before[utt] = {"sound": file_checksum(path), **wanted}
            add_source(folder, utt, before[utt])  # at once, as a run may be killed
        now[utt] = {**before[utt], **feats_place(feats_scp)}
    write_sources(folder, now)
    write_scp(folder / "wav" / "wav.scp", wavs)
    return System(name, folder / "wav", {utt: str(path) for utt, path in wavs.items()}), now
