"""Write a trained vocoder as one file that runs without this package: features and noise in, sound out, of any length.

Inputs are "feats", un-normalised log-mel (frames, n_mels), and "noise", standard normal times the temperature
(frames * hop_length,), both float32; the output is "wav" (frames * hop_length,). A vocoder whose source is pulses has
two more: "hertz", the pitch (frames,), above 0 also where there is none, and "voiced" (frames,), from 0 to 1; of any
pitch tracker, or of ``vocoder.pitch(feats)``. What was written is compared with torch before it gets its
name.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

#: Largest difference to torch that is accepted, for noise of deviation 1.
TOLERANCE = 1e-3
#: Frames of the utterance that is traced, and of those that are compared: other lengths, also the shortest.
TRACED, COMPARED = 6, (1, 11)
OPSET = 17


def get_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="export_onnx", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--model_file", type=Path, required=True, help="weights, e.g. exp/voc_x/valid.loss.best.pth")
    parser.add_argument("--train_config", type=Path, help="its configuration (default: config.yaml beside the weights)")
    parser.add_argument("--output", type=Path, required=True, help="file to write: .onnx or .pt2")
    parser.add_argument(
        "--format",
        default="onnx",
        choices=("onnx", "torch_export"),
        help="torch_export: an archive for torch.export.load",
    )
    return parser


def exportable(vocoder: nn.Module, kind: str) -> nn.Module:
    """Return a module from feats (frames, n_mels) and noise (samples,) to sound (samples,), weight norm folded in.

    Where the source is pulses, hertz and voiced (frames,) are its further inputs.

    The vocoder itself is changed: it can't be trained any more. ``kind`` is that of ``--format``.
    """
    import torch
    from torch import nn
    from torch.nn.utils import parametrize

    from flowavenet_plugin.flow import exported_prediction
    from flowavenet_plugin.vocoder.inversion.pitch import Pitch
    from flowavenet_plugin.vocoder.source import at

    source = vocoder.tables().source
    loop = exported_prediction.scripted_loop if kind == "onnx" else exported_prediction.scanning_loop

    def fitting(values: Tensor, feats: Tensor, width: int) -> Tensor:
        """Let what runs the file refuse values that don't fit the features: operators would make do with them.

        ONNX spreads a single row over many, and joins anything with nothing: so rows are joined, and taken by number.
        """
        if kind == "onnx":
            rows = values.reshape(-1, width)[torch.arange(feats.shape[0])]
            there = torch.cat([values.reshape(-1, width), feats[:, :1]], dim=1)
            return (rows + 0 * there[:, :width]).flatten()
        # The sum keeps two changes of shape from being taken for none.
        return (values.reshape(feats.shape[0], width) + 0 * feats[:, :1]).flatten()

    class Exported(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vocoder = vocoder

        def forward(self, feats: Tensor, noise: Tensor, *pitch: Tensor) -> Tensor:
            if vocoder.reader is not None:
                feats = vocoder.read(feats[None], [feats.shape[0]]).feats[0]
            cond = vocoder.normalize(feats)
            noise = fitting(noise, feats, vocoder.hop_length)
            if pitch:
                hertz, voiced = (fitting(part, feats, 1)[None] for part in pitch)
                latent, _ = source.of_pitch(Pitch(hertz, voiced), torch.zeros(1, 1, dtype=torch.float64))
                noise = at(latent, noise[None], 1.0)[0]
            # Where frames aren't whole columns the end must be marked, and always is: a graph has no branches.
            ragged = vocoder.hop_length % vocoder.flow.column
            lengths = torch.full((1,), noise.shape[0]) if ragged else None
            wav = vocoder.flow.inverse_by_modules(noise[None, None], cond.t()[None], lengths)[0, 0]
            if vocoder.prediction is None:
                return wav
            return exported_prediction.inverse(vocoder.prediction, wav, feats, cond, loop)

    for module in list(vocoder.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
    return Exported().eval().requires_grad_(False)


def example(vocoder: nn.Module, frames: int) -> dict[str, Tensor]:
    """Return inputs by their names: features like those of training, noise, and a pitch where it is wanted."""
    import torch

    generator = torch.Generator().manual_seed(frames)
    feats = vocoder.feats_mean + vocoder.feats_std * torch.randn(frames, vocoder.n_mels, generator=generator)
    inputs = dict(feats=feats, noise=torch.randn(frames * vocoder.hop_length, generator=generator))
    if vocoder.tables().source is not None:
        inputs["hertz"] = 100 + 200 * torch.rand(frames, generator=generator)
        inputs["voiced"] = (torch.rand(frames, generator=generator) > 0.3).float()
    return inputs


def write_onnx(module: nn.Module, path: Path) -> None:
    """Write an ONNX file, weights included or, above 2 GB, beside it."""
    import torch

    inputs = example(module.vocoder, TRACED)
    dynamic = {name: {0: "samples" if name == "noise" else "frames"} for name in inputs} | dict(wav={0: "samples"})
    torch.onnx.export(
        module,
        tuple(inputs.values()),
        str(path),
        dynamo=False,
        input_names=list(inputs),
        output_names=["wav"],
        dynamic_axes=dynamic,
        opset_version=OPSET,
    )


def run_onnx(path: Path, **inputs: Tensor) -> Tensor:
    """Run an ONNX file on the CPU, with inputs by their names."""
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {name: value.numpy() for name, value in inputs.items()})[0])


def write_torch_export(module: nn.Module, path: Path) -> None:
    """Write a torch.export archive.

    Raises:
        ValueError: If frames aren't whole columns: torch.export can't follow the rounding of lengths. If this torch is
            older than the option by which lengths stay free.
    """
    import torch

    if "prefer_deferred_runtime_asserts_over_guards" not in signature(torch.export.export).parameters:
        raise ValueError(f"torch_export needs torch 2.9 or later, this is {torch.__version__}; --format onnx takes any")
    if module.vocoder.hop_length % module.vocoder.flow.column:
        raise ValueError(
            f"torch_export needs a hop_length that is a multiple of {module.vocoder.flow.column}, not "
            f"{module.vocoder.hop_length}; --format onnx takes any"
        )
    if module.vocoder.tables().source is not None:
        raise ValueError("torch_export can't follow pulses at a pitch of any length; --format onnx can")
    frames = torch.export.Dim("frames", min=1)
    inputs = example(module.vocoder, TRACED)
    shapes = [{0: module.vocoder.hop_length * frames if name == "noise" else frames} for name in inputs]
    program = torch.export.export(
        module,
        tuple(inputs.values()),
        dynamic_shapes=tuple(shapes),
        strict=False,
        prefer_deferred_runtime_asserts_over_guards=True,
    )
    torch.export.save(program, path)


def run_torch_export(path: Path, **inputs: Tensor) -> Tensor:
    """Run a torch.export archive, with inputs in their order."""
    import torch

    return torch.export.load(path).module()(*inputs.values())


def export(args: argparse.Namespace) -> None:
    """Export as the command line says.

    Raises:
        ValueError: If the weights can't be used, the vocoder is no FloWaveNet, a package is missing, or what was
            written computes something else.
    """
    import torch

    from flowavenet_plugin.vocoder.loading import load_vocoder
    from flowavenet_plugin.vocoder.refined_vocoder import RefinedVocoder

    vocoder = load_vocoder(args.model_file, args.train_config)
    if isinstance(vocoder, RefinedVocoder):
        vocoder = vocoder.vocoder
        logging.warning(f"{args.model_file} refines its sound by default; what is written is the network alone")
    if not hasattr(vocoder, "flow"):
        raise ValueError(f"{args.model_file} is a {type(vocoder).__name__}, which has no flow to export")
    module = exportable(vocoder, args.format)
    write, run = (write_onnx, run_onnx) if args.format == "onnx" else (write_torch_export, run_torch_export)
    partial = args.output.with_name(f".{args.output.stem}.{os.getpid()}{'.onnx' if args.format == 'onnx' else '.pt2'}")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with torch.no_grad():
            write(module, partial)
            difference = max(compare(module, run, partial, frames) for frames in COMPARED)
        os.replace(partial, args.output)
    except ImportError as error:
        raise ValueError(f"{error.name} is missing: pip install onnx onnxruntime") from error
    finally:
        partial.unlink(missing_ok=True)
    logging.info(f"{args.output}: largest difference to torch {difference:.2g}")


def compare(module: nn.Module, run: object, path: Path, frames: int) -> float:
    """Return the largest difference between a file and torch.

    Raises:
        ValueError: If it is too large.
    """
    inputs = example(module.vocoder, frames)
    expected, got = module(*inputs.values()), run(path, **inputs)
    difference = (got - expected).abs().max().item()
    if not difference <= TOLERANCE * max(1.0, expected.abs().max().item()):
        raise ValueError(f"the exported file differs from torch by {difference} for {frames} frames")
    return difference


def main(cmd: Sequence[str] | None = None) -> None:
    """Export as the command line says; input that can't be used ends with one line and exit status 1.

    Args:
        cmd: Arguments; default: those of the process.
    """
    args = get_parser().parse_args(cmd)
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s: %(message)s")
    try:
        export(args)
    except (ValueError, OSError) as error:
        sys.exit(f"export_onnx: error: {error}")


if __name__ == "__main__":
    main()
