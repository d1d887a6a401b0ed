"""ESPnet2 models of text-to-speech on the tiny corpus, trained by ESPnet2's own commands as tts.sh calls them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import tiny_corpus
from flowavenet_plugin.bin.extract_feats import main as extract_feats

DOOR = [sys.executable, "-m", "flowavenet_plugin"]
TACOTRON2 = dict(embed_dim=4, elayers=1, eunits=4, econv_layers=1, econv_chans=4, econv_filts=3, dlayers=1, dunits=4)
TACOTRON2.update(
    prenet_layers=1, prenet_units=4, postnet_layers=1, postnet_chans=4, postnet_filts=3, adim=4, aconv_chans=2
)
TACOTRON2.update(aconv_filts=3, reduction_factor=1)
FASTSPEECH2 = dict(adim=4, aheads=1, elayers=1, eunits=4, dlayers=1, dunits=4, postnet_layers=0, reduction_factor=1)
FASTSPEECH2.update(duration_predictor_chans=4, pitch_predictor_chans=4, energy_predictor_chans=4)


def conf(name: str, values: dict[str, object]) -> list[str]:
    """Options of a class, as ESPnet2's command line takes them."""
    return [word for key, value in values.items() for word in (f"--{name}", f"{key}={value}")]


def run(recipe: Path, *words: str) -> None:
    """Run a command of a recipe through the door, as tts.sh does with ``--python "python3 -m flowavenet_plugin"``."""
    done = subprocess.run([*DOOR, *words], cwd=recipe, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def make_recipe(recipe: Path) -> Path:
    """A recipe's folder with features for the vocoder (dump/fbank/tr) and data for the TTS model (dump/raw/tr)."""
    raw = tiny_corpus.make_corpus(recipe / "dump" / "raw" / "tr", n_utts=4)
    extract_feats(
        ["--wav_scp", str(raw / "wav.scp"), "--output_dir", str(recipe / "dump" / "fbank" / "tr")]
        + conf("feats_extract_conf", tiny_corpus.FEATS_CONF)
    )
    (raw / "text").write_text("utt0 abc\nutt1 cab\nutt2 bca\nutt3 acb\n")
    (recipe / "tokens.txt").write_text("<blank>\n<unk>\na\nb\nc\n<sos/eos>\n")
    return recipe


def train(recipe: Path, name: str, tts_conf: dict[str, object], *data: str, options: tuple[str, ...] = ()) -> Path:
    """Train for an epoch: statistics as stage 6 of tts.sh, training as stage 7.

    Args:
        recipe: From :func:`make_recipe`.
        name: Name of ESPnet2's model.
        tts_conf: Its options.
        data: Further inputs, ``path,name,type``.
        options: More options for both.

    Returns:
        The experiment, relative to the recipe.
    """
    exp, stats = Path("exp") / f"tts_{name}", Path("exp") / f"tts_stats_{name}"
    common = ["--token_list", "tokens.txt", "--token_type", "char", "--cleaner", "none", "--g2p", "none"]
    common += ["--tts", name, *conf("tts_conf", tts_conf), "--feats_extract", "fbank", "--batch_type", "sorted"]
    common += [*conf("feats_extract_conf", tiny_corpus.FEATS_CONF), "--num_workers", "0", "--batch_size", "2"]
    for kind in ("train", "valid"):
        for entry in ("dump/raw/tr/text,text,text", "dump/raw/tr/wav.scp,speech,sound", *data):
            common += [f"--{kind}_data_path_and_name_and_type", entry]
    common += options
    shapes = ["--train_shape_file", "dump/raw/tr/wav.scp", "--valid_shape_file", "dump/raw/tr/wav.scp"]
    module = ["-m", "espnet2.bin.tts_train", *common]
    run(
        recipe,
        *module,
        "--collect_stats",
        "true",
        "--output_dir",
        str(stats),
        "--normalize",
        "none",
        "--pitch_normalize",
        "none",
        "--energy_normalize",
        "none",
        *shapes,
    )
    shapes = []
    for kind in ("train", "valid"):
        for file in ("text_shape", "speech_shape"):
            shapes += [f"--{kind}_shape_file", str(stats / kind / file)]
    mvn = ["--normalize", "global_mvn", "--normalize_conf", f"stats_file={stats}/train/feats_stats.npz"]
    for kind in ("pitch", "energy"):
        if (recipe / stats / "train" / f"{kind}_stats.npz").exists():
            mvn += [f"--{kind}_normalize", "global_mvn"]
            mvn += [f"--{kind}_normalize_conf", f"stats_file={stats}/train/{kind}_stats.npz"]
    run(recipe, *module, "--output_dir", str(exp), "--max_epoch", "1", "--seed", "1", *mvn, *shapes)
    assert (recipe / exp / "1epoch.pth").exists()
    return exp


def decode(recipe: Path, exp: Path, out: Path, vocoder: Path | None, *options: str) -> Path:
    """Run tts_inference on dump/raw/tr as stage 8 of tts.sh, with seed 5; return the folder, relative to the recipe."""
    command = ["-m", "espnet2.bin.tts_inference", "--ngpu", "0", "--seed", "5", "--num_workers", "0"]
    command += ["--train_config", str(exp / "config.yaml"), "--model_file", str(exp / "1epoch.pth")]
    command += ["--data_path_and_name_and_type", "dump/raw/tr/text,text,text", "--output_dir", str(out)]
    command += ["--vocoder_file", "none" if vocoder is None else str(vocoder)]
    run(recipe, *command, *options)
    return out
