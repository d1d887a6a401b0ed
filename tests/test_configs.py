"""Every yaml of the recipes builds its model, and says what each of its keys means."""

from __future__ import annotations

import dataclasses
import inspect
from fractions import Fraction
from pathlib import Path

import pytest
import torch
import yaml

from flowavenet_plugin.bin import vocoder_inference
from flowavenet_plugin.bin.vocoder_train import get_parser
from flowavenet_plugin.tasks.schedule import BudgetHalving
from flowavenet_plugin.tasks.vocoder import VocoderTask
from flowavenet_plugin.vocoder.flowavenet_vocoder import FloWaveNetVocoder
from flowavenet_plugin.vocoder.settings import VocoderSettings

ROOT = Path(__file__).parent.parent
CONFIGS = sorted(path for folder in (ROOT, *ROOT.glob("egs/*/voc1")) for path in folder.glob("conf/**/*.yaml"))
TRAIN = [path for path in CONFIGS if path.name.startswith(("train", "finetune"))]
DECODE = [path for path in CONFIGS if path.name.startswith("decode")]
#: Features that the recipes give to their configurations on the command line.
FEATS = {"jsut": dict(fs=24000, n_fft=2048, hop_length=300, win_length=1200)}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_every_config_is_of_a_known_kind() -> None:
    assert len(TRAIN) >= 4 and len(DECODE) >= 1
    assert set(CONFIGS) == set(TRAIN) | set(DECODE)


@pytest.mark.parametrize("path", TRAIN, ids=name)
def test_training_config_builds_its_model(path: Path, tmp_path: Path) -> None:
    args = get_parser().parse_args(["--config", str(path), "--output_dir", str(tmp_path)])
    corpus = path.relative_to(ROOT).parts[1]
    args.feats_extract_conf = FEATS.get(corpus, dict(fs=22050))
    with torch.device("meta"):
        model = VocoderTask.build_model(args)
    assert args.segment_length >= model.vocoder.hop_length
    if path == ROOT / "conf" / "train_flowavenet.yaml":
        assert sum(p.numel() for p in model.parameters()) == 182_644_788 - 3_236_352  # less what gets no gradient
        assert args.max_epoch * args.num_iters_per_epoch == 700_000
        halvings = [Fraction(part) * args.max_epoch * args.num_iters_per_epoch for part in args.lr_halvings]
        assert halvings == [200_000, 400_000, 600_000]


@pytest.mark.parametrize("path", TRAIN, ids=name)
def test_training_config_has_a_schedule_that_ends_with_its_budget(path: Path, tmp_path: Path) -> None:
    args = get_parser().parse_args(["--config", str(path), "--output_dir", str(tmp_path)])
    if args.scheduler is None:
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=args.optim_conf["lr"])
        schedule = BudgetHalving(optimizer, args.lr_halvings, args.max_epoch)
        for _ in range(args.max_epoch - 1):
            optimizer.step()
            schedule.step()
        assert len(args.lr_halvings) >= 3  # the paper's number: in the end an eighth
        assert optimizer.param_groups[0]["lr"] == pytest.approx(args.optim_conf["lr"] / 2 ** len(args.lr_halvings))
    else:  # counted in iterations
        assert args.scheduler_conf["first_cycle_steps"] == args.max_epoch * args.num_iters_per_epoch


@pytest.mark.parametrize("path", TRAIN, ids=name)
def test_every_key_is_explained(path: Path) -> None:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        key = line.split(":")[0].strip()
        opens = line.rstrip().endswith(":")  # its children are explained
        if ":" in line and not line.lstrip().startswith("#") and not opens:
            assert "#" in line, f"{path}:{number}: {key} has no comment"


def plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


@pytest.mark.parametrize("path", TRAIN, ids=name)
def test_a_training_preset_holds_what_differs_from_the_defaults_only(path: Path) -> None:
    defaults, preset = vars(get_parser().parse_args(["--output_dir", "x"])), yaml.safe_load(path.read_text())
    assert [key for key, value in preset.items() if value == defaults[key]] == []
    given = preset.get("vocoder_conf", {})
    assert [key for key, value in given.items() if value == plain(getattr(VocoderSettings, key))] == []


def test_a_decoding_preset_holds_what_differs_from_the_defaults_only() -> None:
    for path in DECODE:
        given = ["--scp", "feats.scp", "--model_file", "x.pth", "--output_dir", "out"]
        defaults = vars(vocoder_inference.parse_args(given))
        assert [key for key, value in yaml.safe_load(path.read_text()).items() if value == defaults[key]] == []


@pytest.mark.parametrize("path", TRAIN, ids=name)
def test_comments_of_settings_are_those_of_the_constructor(path: Path) -> None:
    known, section = {each.name: each.metadata["meaning"] for each in dataclasses.fields(VocoderSettings)}, None
    for line in path.read_text().splitlines():
        section = line.split(":")[0] if line[:1].isalpha() else section
        if section == "vocoder_conf" and line.startswith(" "):
            comment = line.split("#")[1].strip().removeprefix("(*) ")
            assert comment == known[line.split(":")[0].strip()], line


def test_the_table_of_settings_is_the_constructors() -> None:
    """docs/architecture.md; the row of each is `| name | default | meaning |`."""
    text = (ROOT / "docs/architecture.md").read_text()
    own = [field for field in dataclasses.fields(VocoderSettings) if field.name != "n_mels"]
    rows = [f"| `{f.name}` | {str(plain(f.default)).lower()} | {f.metadata['meaning']} |" for f in own]
    assert "\n".join(rows) in text, "\n".join(rows)
    assert list(inspect.signature(FloWaveNetVocoder).parameters)[3:] == [field.name for field in own]


@pytest.mark.parametrize("path", DECODE, ids=name)
def test_decoding_config_is_accepted(path: Path) -> None:
    command = ["--config", str(path), "--scp", "feats.scp", "--model_file", "x.pth", "--output_dir", "out"]
    args = vocoder_inference.parse_args(command)
    assert set(yaml.safe_load(path.read_text())) <= set(vars(args))
