"""Turn a checkpoint of the original FloWaveNet code into config.yaml and model.pth, ready for ``load_vocoder``.

The file must hold the dict that the original's training script saves (``state_dict`` and more), also from a
data-parallel model. Sizes are read off the weights. What the file doesn't tell (sampling rate, features) is the
original's preprocessing by default. Every key is mapped or dropped on purpose: DIR/import.txt says which.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from espnet2.utils.types import str2bool


def get_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="import_original", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="the original's .pth")
    parser.add_argument("--output_dir", type=Path, required=True, help="folder for config.yaml and model.pth")
    parser.add_argument("--fs", type=int, default=22050, help="sampling rate of the audio it was trained on, Hz")
    parser.add_argument("--n_fft", type=int, default=1024, help="FFT size of its features, samples")
    parser.add_argument("--fmin", type=int, default=125, help="lowest mel frequency, Hz")
    parser.add_argument("--fmax", type=int, default=7600, help="highest mel frequency, Hz")
    parser.add_argument("--causal", type=str2bool, default=False, help="its WaveNets are causal (weights don't tell)")
    parser.add_argument("--temperature", type=float, default=0.8, help="default temperature of synthesis")
    parser.add_argument("--log_level", default="INFO", choices=("ERROR", "WARNING", "INFO", "DEBUG"), help="verbosity")
    return parser


def read_original(checkpoint: Path) -> Mapping[str, Any]:
    """Read the state dict of an original checkpoint.

    Raises:
        FileNotFoundError: If the file is missing.
        ValueError: If it is broken, holds code, or no state dict.
    """
    import torch

    from flowavenet_plugin.vocoder.loading import read_tensors

    states = read_tensors(checkpoint)
    states = states.get("state_dict", states) if isinstance(states, Mapping) else states
    if not isinstance(states, Mapping) or not all(isinstance(value, torch.Tensor) for value in states.values()):
        raise ValueError(f"{checkpoint} holds no state_dict")
    return states


def import_original(args: argparse.Namespace) -> Path:
    """Import as the command line says.

    Returns:
        Path of our weights.

    Raises:
        ValueError: If the checkpoint isn't one of the original's.
    """
    from flowavenet_plugin.vocoder.loading import check_keys, save_vocoder, vocoder_from_config
    from flowavenet_plugin.vocoder.original_weights import import_state_dict

    imported = import_state_dict(read_original(args.checkpoint))
    sizes = dict(imported.sizes)
    n_mels, hop_length = sizes.pop("n_mels"), math.prod(sizes["upsample_scales"])
    config = dict(
        vocoder="flowavenet",
        vocoder_conf=dict(sizes, causal=args.causal, temperature=args.temperature),
        feats_extract="original",
        feats_extract_conf=dict(
            fs=args.fs,
            n_fft=args.n_fft,
            win_length=args.n_fft,
            hop_length=hop_length,
            window="hann",
            n_mels=n_mels,
            fmin=args.fmin,
            fmax=args.fmax,
        ),
    )
    vocoder = vocoder_from_config(config)
    expected = vocoder.flow.state_dict()
    check_keys(expected, imported.state_dict, args.checkpoint, "the sizes read off it")
    vocoder.flow.load_state_dict(imported.state_dict)
    model_file = save_vocoder(vocoder, config, args.output_dir)
    lines = [f"{old} -> {new}" for old, new in imported.mapped.items()]
    lines += [f"{old} dropped: residual branch of a last layer, which feeds nothing" for old in imported.dropped]
    (args.output_dir / "import.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    logging.info(
        f"{args.checkpoint}: {len(imported.mapped)} tensors mapped, {len(imported.dropped)} dropped on purpose; "
        f"{sizes}, {n_mels} mel bands"
    )
    logging.info(f"wrote {model_file}, config.yaml and import.txt")
    return model_file


def main(cmd: Sequence[str] | None = None) -> None:
    """Import as the command line says; input that can't be used ends with one line and exit status 1.

    Args:
        cmd: Arguments; default: those of the process.
    """
    args = get_parser().parse_args(cmd)
    logging.basicConfig(level=args.log_level, format="%(asctime)s %(levelname)s: %(message)s")
    try:
        import_original(args)
    except (ValueError, OSError) as error:
        sys.exit(f"import_original: error: {error}")


if __name__ == "__main__":
    main()
