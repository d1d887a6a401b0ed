"""The family of compact models beside the paper's: what each costs, and how well it has learnt after the same training.

    python benchmarks/family.py --data folder/of/wavs --results family.json --picture docs/images/family.png

Every row (--rows; default: the presets) is built, counted and timed; with --data it is also trained from the same
segments for the same number of steps, and judged on clips that no row saw: the last fifth of --data and of
--synthetic. Figures: parameters; GFLOP per second of speech, counted from the plain modules' synthesis (two for a
product and its sum); real-time factor (seconds of work per second of speech, median, in turns with ESPnet2's HiFi-GAN
v1 generator on the same threads); samples trained per second; held-out log-likelihood in nats per sample; log-spectral
distance of copy synthesis in dB. --results keeps rows: a row that is there isn't trained again. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
from family_rows import PRESETS, names, options
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from flowavenet_plugin.data.features import build_feats_extract, extract
from flowavenet_plugin.evaluation.metrics import log_spectral_distance
from flowavenet_plugin.tasks.espnet_model import ESPnetVocoderModel
from flowavenet_plugin.tasks.segments import SegmentCollate
from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder

FS, HOP, N_MELS = 22050, 256, 80
#: Of a flow that isn't wanted, beside a prediction that is.
TINY = dict(n_block=1, n_flow=1, n_layer=1, filter_size=1)
SYNTHETIC = Path(__file__).parents[1] / "egs/mini/voc1/corpus"
Clip = tuple[str, dict[str, np.ndarray]]
Row = dict[str, object]


def read_clips(folder: Path) -> tuple[list[Clip], list[Clip]]:
    """Read the clips below a folder with ESPnet2's features; returns those for training, and the last fifth.

    Raises:
        ValueError: If there are less than five, or one has another sampling rate.
    """
    clips = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".wav", ".flac")):
        wav, fs = soundfile.read(path, dtype="float32")
        if fs != FS:
            raise ValueError(f"{path} has {fs} Hz, not {FS}")
        speech, feats = extract(build_feats_extract("fbank", dict(fs=fs)), wav, fs, path.stem)
        clips.append((path.stem, dict(speech=speech, feats=feats)))
    if len(clips) < 5:
        raise ValueError(f"{len(clips)} clips below {folder}, at least 5 are needed")
    held_out = len(clips) // 5
    return clips[:-held_out], clips[-held_out:]


def count(name: str) -> Row:
    """Count parameters, and operations of one second of speech (of the prediction: its products only)."""
    frames = round(FS / HOP)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        with torch.device("meta"):
            vocoder = FloWaveNetVocoder(FS, HOP, N_MELS, **options(name)).eval()
            vocoder.flow.inverse_by_modules(torch.zeros(1, 1, frames * HOP), torch.zeros(1, N_MELS, frames))
        if vocoder.prediction is not None:
            prediction = FloWaveNetVocoder(FS, HOP, N_MELS, **TINY, **_prediction(name)).prediction
            feats = torch.zeros(1, frames, N_MELS)
            prediction.inverse(torch.zeros(1, frames * HOP), feats, feats)
    gflop = counter.get_total_flops() / 1e9 / (frames * HOP / FS)
    return dict(parameters=sum(p.numel() for p in vocoder.parameters()), gflop_per_second=gflop)


def _prediction(name: str) -> dict[str, object]:
    return {key: value for key, value in options(name).items() if key.startswith("prediction") or key == "mel_range"}


def hifigan() -> nn.Module:
    """Return ESPnet2's HiFi-GAN v1 generator: features (1, n_mels, frames) to sound."""
    from espnet2.gan_tts.hifigan import HiFiGANGenerator

    generator = HiFiGANGenerator(
        in_channels=N_MELS, channels=512, upsample_scales=(8, 8, 2, 2), upsample_kernel_sizes=(16, 16, 4, 4)
    )
    generator.remove_weight_norm()
    generator.eval()
    return generator


@torch.no_grad()
def speed(name: str, args: argparse.Namespace) -> Row:
    """Return the real-time factors of a row and of HiFi-GAN, which take turns; the first turn isn't counted.

    Ours is the whole vocoder, from features to sound.
    """
    torch.set_num_threads(args.threads)
    vocoder = FloWaveNetVocoder(FS, HOP, N_MELS, **options(name)).eval()
    vocoder.for_inference()
    frames = round(args.seconds * FS / HOP)
    feats, generator = torch.randn(frames, N_MELS) - 2, hifigan()
    systems = (lambda: vocoder.inference(feats, seed=0), lambda: generator(feats.t()[None]))
    taken: list[list[float]] = []
    for _ in range(args.repeats + 1):
        taken.append([])
        for run in systems:
            start = time.perf_counter()
            run()
            taken[-1].append((time.perf_counter() - start) * FS / (frames * HOP))
    own, other = (statistics.median(values) for values in zip(*taken[1:], strict=True))
    return dict(rtf=own, hifigan_rtf=other, rtf_threads=args.threads)


def train(name: str, clips: list[Clip], args: argparse.Namespace) -> tuple[FloWaveNetVocoder, Row]:
    """Train a row; returns it, and how fast that went."""
    torch.manual_seed(args.seed)
    np.random.seed(args.seed)
    model = ESPnetVocoderModel(FloWaveNetVocoder(FS, HOP, N_MELS, **{**options(name), "reversible": False}))
    feats = torch.from_numpy(np.concatenate([data["feats"] for _, data in clips]))
    model.vocoder.set_feats_stats(feats.mean(0), feats.std(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
    collate, order = SegmentCollate(HOP, args.frames, train=True), np.random.default_rng(args.seed)
    model.train()
    start = time.process_time()
    for step in range(args.steps):
        _, batch = collate([clips[i] for i in order.integers(len(clips), size=args.batch_size)])
        loss = model(**batch)[0]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 49:
            print(f"{name}: step {step + 1}, loss {loss.item():.3f}", flush=True)
    samples = args.steps * args.batch_size * args.frames * HOP
    seconds = time.process_time() - start
    return model.vocoder.eval(), dict(trained_samples=samples, samples_per_cpu_second=samples / seconds)


@torch.no_grad()
def judge(vocoder: FloWaveNetVocoder, clips: list[Clip], frames: int) -> dict[str, float]:
    """Return log-likelihood (nats per sample) and log-spectral distance (dB) of parts of clips, means over them."""
    likelihoods, distances = [], []
    for _, data in clips:
        speech, feats = torch.from_numpy(data["speech"][: frames * HOP]), torch.from_numpy(data["feats"][:frames])
        likelihoods.append(float(vocoder.log_likelihood(speech, feats)))
        generated = vocoder.inference(feats, temperature=0.8, seed=0)[: len(speech)]
        distances.append(float(log_spectral_distance(speech.numpy(), generated.numpy(), FS)))
    return dict(log_likelihood=statistics.mean(likelihoods), lsd=statistics.mean(distances))


def learn(name: str, args: argparse.Namespace) -> Row:
    """Train a row and judge it on the held-out clips of both corpora."""
    corpora = dict(real=read_clips(args.data), synthetic=read_clips(args.synthetic))
    vocoder, row = train(name, [clip for seen, _ in corpora.values() for clip in seen], args)
    row |= dict(seed=args.seed, steps=args.steps, batch_size=args.batch_size, segment=args.frames * HOP, lr=args.lr)
    found = {kind: judge(vocoder, held_out, args.judged_frames) for kind, (_, held_out) in corpora.items()}
    for figure in ("log_likelihood", "lsd"):
        row |= {f"{figure}_{kind}": values[figure] for kind, values in found.items()}
        row[figure] = statistics.mean(values[figure] for values in found.values())
    return row


def measure(name: str, args: argparse.Namespace, kept: dict[str, Row]) -> Row:
    """Return a row: what is kept of it, and what is missing."""
    row = {**kept.get(name, {}), **count(name)}
    if args.repeats and ("rtf" not in row or not args.results):
        row |= speed(name, args)
    if args.data and "log_likelihood" not in row and name not in args.untrained:
        torch.set_num_threads(args.train_threads)
        row |= learn(name, args)
    print(name, {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}, flush=True)
    return row


def get_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a minute on two cores: costs of the presets, no training")
    parser.add_argument("--rows", nargs="+", default=list(PRESETS), help=f"of {', '.join(names())}")
    parser.add_argument("--data", type=Path, help="folder with wav files of 22050 Hz; without: nothing is trained")
    parser.add_argument("--synthetic", type=Path, default=SYNTHETIC, help="the same of synthesised speech, wav or flac")
    parser.add_argument("--untrained", nargs="*", default=["flowavenet"], help="rows that are only counted and timed")
    parser.add_argument("--results", type=Path, help="JSON file of rows; what it holds isn't measured again")
    parser.add_argument("--picture", type=Path, help="write the picture of all rows that were trained")
    parser.add_argument("--steps", type=int, default=200, help="training steps")
    parser.add_argument("--batch_size", type=int, default=2, help="segments per step")
    parser.add_argument("--frames", type=int, default=16, help="frames of 256 samples in a segment")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate at the start; its end is zero")
    parser.add_argument("--seed", type=int, default=0, help="of weights, order and segments")
    parser.add_argument("--judged_frames", type=int, default=120, help="frames of each held-out clip that are judged")
    parser.add_argument("--train_threads", type=int, default=1, help="threads of training")
    parser.add_argument("--threads", type=int, default=2, help="threads of synthesis")
    parser.add_argument("--seconds", type=float, default=6.6, help="length of the utterance that is timed")
    parser.add_argument("--repeats", type=int, default=3, help="turns of the timing; 0: none")
    return parser


def main() -> None:
    """Measure all rows, then print the JSON."""
    args = get_parser().parse_args()
    if args.quick:
        args.data, args.seconds, args.repeats = None, min(args.seconds, 1.0), min(args.repeats, 1)
    rows = json.loads(args.results.read_text()) if args.results and args.results.exists() else {}
    for name in args.rows:
        rows[name] = measure(name, args, rows)
        if args.results:
            args.results.write_text(json.dumps(rows, indent=1) + "\n")
    if args.picture:
        from family_picture import draw

        draw(rows, args.picture)
    shown = {name: rows[name] for name in args.rows}
    timed = [row["hifigan_rtf"] for row in shown.values() if "hifigan_rtf" in row]
    found = dict(shown, torch=torch.__version__, seconds=args.seconds, threads=args.threads)
    print(json.dumps({**found, "hifigan_rtf": statistics.median(timed)} if timed else found))


if __name__ == "__main__":
    main()
