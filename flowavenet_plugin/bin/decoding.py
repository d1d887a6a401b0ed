"""Utterances through a vocoder into wav files: the work of ``vocoder_inference``."""

from __future__ import annotations

import argparse
import functools
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from flowavenet_plugin.bin.sources import Making
    from flowavenet_plugin.vocoder.abs_vocoder import AbsVocoder


def batches(keys: Sequence[str], feats: Mapping[str, Any], size: int, bad: dict[str, str]) -> Iterator[list[str]]:
    """Group utterances of similar length, ``size`` at a time; one at a time they keep their order.

    Args:
        keys: The utterances.
        feats: Features of each.
        size: How many at a time.
        bad: Gets those whose features can't be read: utterance -> why.

    Raises:
        ValueError: If ``size`` is below 1.
    """
    if size < 1:
        raise ValueError(f"--batch_size must be at least 1, not {size}")
    if size > 1:
        lengths = {}
        for key in keys:
            try:
                lengths[key] = len(feats[key])
            except ValueError as error:
                bad[key] = str(error)
                logging.error(bad[key])
        keys = sorted(lengths, key=lengths.__getitem__, reverse=True)
    for start in range(0, len(keys), size):
        yield list(keys[start : start + size])


class Decoder:
    """A vocoder with the options of the command line."""

    def __init__(self, vocoder: AbsVocoder, args: argparse.Namespace, making: Making) -> None:
        """Get the vocoder ready; it is good for nothing but inference afterwards.

        Args:
            vocoder: A loaded vocoder.
            args: Options of the command.
            making: What is kept beside each sound.

        Raises:
            ValueError: If an option is out of range, or this vocoder doesn't know it.
        """
        self._vocoder, self._args, self._making = vocoder, args, making
        for option, method in (("batch_size", "inference_batch"), ("chunk_frames", "stream")):
            if getattr(args, option) > (option == "batch_size") and not hasattr(vocoder, method):
                raise ValueError(f"{type(vocoder).__name__} takes no --{option} {getattr(args, option)}")
        if args.chunk_frames < 0 or (args.chunk_frames and args.batch_size > 1):
            raise ValueError(
                f"--chunk_frames {args.chunk_frames} --batch_size {args.batch_size}: at least 1 frame, and one "
                "utterance at a time"
            )
        if not args.denoiser_strength >= 0:
            raise ValueError(f"--denoiser_strength must be a number from 0, not {args.denoiser_strength}")
        if args.cuda_graphs and not args.ngpu:
            raise ValueError("--cuda_graphs true is for GPUs, but --ngpu is 0")
        vocoder.checks = False  # made here, where utterances have names
        vocoder.for_inference(_precision(vocoder, args))
        vocoder.cuda_graphs = args.cuda_graphs
        self._denoiser = None
        if args.denoiser_strength > 0:
            from flowavenet_plugin.vocoder.denoiser import Denoiser

            self._denoiser = Denoiser(vocoder)

    def __call__(self, feats: Mapping[str, Tensor]) -> dict[str, float]:
        """Decode some utterances at once into their wav files.

        Args:
            feats: Un-normalised features of each utterance, shape (frames, n_mels).

        Returns:
            Seconds of work per second of speech, of each utterance: its share by length.

        Raises:
            ValueError: If the features can't be used; the message names the utterance.
        """
        from flowavenet_plugin.vocoder.level import check_level

        start = time.perf_counter()
        key = ", ".join(feats)
        try:
            for key, item in feats.items():
                if (warning := check_level(self._vocoder, item)) is not None:
                    logging.warning(f"{key}: {warning}")
            key = ", ".join(feats)
            wavs = self._synthesise(list(feats.values()))
        except ValueError as error:
            raise ValueError(f"utterance {key}: {error}") from error
        if self._denoiser is not None:
            wavs = [self._denoiser(wav, self._args.denoiser_strength) for wav in wavs]
        sounds = {key: wav.cpu().numpy() for key, wav in zip(feats, wavs, strict=True)}  # waits for the GPU
        fs = self._vocoder.fs
        rtf = (time.perf_counter() - start) * fs / sum(len(samples) for samples in sounds.values())
        for key, samples in sounds.items():
            made_of = functools.partial(self._making.source, feats[key].numpy())
            write_sound(self._args.output_dir, key, samples, fs, rtf, made_of)
        return dict.fromkeys(feats, rtf)

    def _synthesise(self, feats: list[Tensor]) -> list[Tensor]:
        import torch

        from flowavenet_plugin.vocoder.seeds import noise_seed

        vocoder, temperature, chunk = self._vocoder, self._args.temperature, self._args.chunk_frames
        seeds = [noise_seed(self._args.seed, item) for item in feats]
        feats = [item.to(vocoder.feats_mean) for item in feats]
        if len(feats) > 1:
            return vocoder.inference_batch(feats, temperature=temperature, seeds=seeds)
        if chunk:
            pieces = vocoder.stream(feats[0].split(chunk), temperature=temperature, seed=seeds[0], chunk_frames=chunk)
            return [torch.cat(list(pieces))]
        return [vocoder.inference(feats[0], temperature=temperature, seed=seeds[0])]


def _precision(vocoder: AbsVocoder, args: argparse.Namespace) -> Any:
    """Return the precision inside the networks, None: the weights'; tf32 is a switch of torch's.

    Raises:
        ValueError: If this vocoder or this device doesn't know it.
    """
    import torch

    if args.dtype == "tf32":
        if not args.ngpu:
            raise ValueError("--dtype tf32 is for GPUs: with --ngpu 0 take float32 or bfloat16")
        torch.set_float32_matmul_precision("high")
        return None
    if args.dtype == "auto":
        return None
    if not hasattr(vocoder, "prepare"):
        if args.dtype == "float32":
            return None  # what the weights are
        raise ValueError(f"{type(vocoder).__name__} takes no --dtype {args.dtype}")
    return getattr(torch, args.dtype)


def write_sound(
    output_dir: Path, key: str, samples: Any, fs: int, rtf: float, made_of: Callable[[Path], Mapping[str, str]]
) -> None:
    """Write an utterance's wav file, what it was made of, and its real-time factor.

    Raises:
        ValueError: If samples (numpy) are not finite, or far beyond full scale.
    """
    import numpy as np

    from flowavenet_plugin.data.decoded import locked, wav_path, write_wav
    from flowavenet_plugin.data.partial import naming
    from flowavenet_plugin.data.provenance import add_source
    from flowavenet_plugin.vocoder.checks import FAR_BEYOND

    if not np.isfinite(samples).all():
        raise ValueError(f"utterance {key}: {int((~np.isfinite(samples)).sum())} of {len(samples)} samples not finite")
    if (peak := np.abs(samples).max()) > FAR_BEYOND:
        raise ValueError(f"utterance {key}: the sound has a peak of {peak:.6g}, but amplitudes lie in [-1, 1]")
    clipped = int((np.abs(samples) > 1).sum())
    if clipped:
        logging.warning(
            f"{key}: {clipped} of {len(samples)} samples clipped, the largest is {np.abs(samples).max():.2f}"
        )
    path = wav_path(output_dir, key)
    write_wav(path, samples, fs)
    source = made_of(path)
    factors = output_dir / "utt2rtf"
    with locked(output_dir), naming(factors), open(factors, "a", encoding="utf-8") as file:
        file.write(f"{key} {rtf:.6f}\n")  # at once, as a run may be killed
        add_source(output_dir, key, source)
    level = logging.DEBUG if sys.stderr.isatty() else logging.INFO
    logging.log(level, f"{key}: {len(samples) / fs:.2f} s of speech, real-time factor {rtf:.4f}")
