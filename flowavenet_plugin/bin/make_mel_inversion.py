"""Write the vocoder without weights for given features: a zip file that goes wherever a packed vocoder goes.

Its settings are those of a TTS model (exp/tts_x/config.yaml), of a vocoder (config.yaml) or of extracted features
(dump/fbank/x/feats_extract.yaml).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def get_parser() -> argparse.ArgumentParser:
    """Options of this command."""
    parser = argparse.ArgumentParser(
        prog="make_mel_inversion", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--config", type=Path, required=True, help="YAML file with feats_extract and feats_extract_conf"
    )
    parser.add_argument("--outpath", type=Path, required=True, help="archive to write, a .zip")
    parser.add_argument("--iterations", type=int, default=32, help="iterations between STFT and mel; 100 are better")
    parser.add_argument("--temperature", type=float, default=1.0, help="deviation of the noise at the start")
    return parser


def read_features(path: Path) -> tuple[str, dict[str, Any]]:
    """Read type and settings of features, defaults included.

    Raises:
        ValueError: If the file has none, or they can't be used; the message names the file.
        FileNotFoundError: If it is missing.
    """
    from flowavenet_plugin.data.features import full_settings
    from flowavenet_plugin.data.settings import read_settings

    config = read_settings(path)
    if not isinstance(config, dict) or config.get("feats_extract") is None:
        raise ValueError(f"{path} has no feats_extract: it is the configuration of no TTS model, vocoder or features")
    try:
        return config["feats_extract"], full_settings(config["feats_extract"], config.get("feats_extract_conf"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def make(args: argparse.Namespace) -> None:
    """Write the archive as the command line says.

    Raises:
        ValueError: If the settings can't be used; nothing is written then.
        OSError: If a file can't be read or written.
    """
    from flowavenet_plugin.vocoder.loading import save_vocoder, vocoder_from_config

    if args.outpath.suffix != ".zip":
        raise ValueError(f"--outpath {args.outpath} must end in .zip")
    kind, settings = read_features(args.config)
    conf = dict(iterations=args.iterations, temperature=args.temperature)
    config = dict(vocoder="mel_inversion", vocoder_conf=conf, feats_extract=kind, feats_extract_conf=settings)
    vocoder = vocoder_from_config(config, args.config)
    try:
        vocoder.set_features(kind, settings)
    except ValueError as error:
        raise ValueError(f"{args.config}: {error}") from error
    args.outpath.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".make.", dir=args.outpath.absolute().parent) as name:
        model_file, archive = save_vocoder(vocoder, config, Path(name) / "mel_inversion"), Path(name) / "archive"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for path in (model_file.with_name("config.yaml"), model_file):
                file.write(path, path.name)
        os.replace(archive, args.outpath)


def main(cmd: Sequence[str] | None = None) -> None:
    """Write as the command line says; input that can't be used ends with one line and exit status 1.

    Args:
        cmd: Arguments; default: those of the process.
    """
    args = get_parser().parse_args(cmd)
    try:
        make(args)
    except (ValueError, OSError) as error:
        sys.exit(f"make_mel_inversion: error: {error}")
    print(args.outpath)


if __name__ == "__main__":
    main()
