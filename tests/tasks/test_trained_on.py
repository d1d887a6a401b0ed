"""A run that goes on is given the sets that it was started with, wherever they lie now; others are refused."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

import tiny_corpus
from flowavenet_plugin.bin.vocoder_train import main
from flowavenet_plugin.data.scp import ArkWriter, open_feats, read_scp, write_scp
from flowavenet_plugin.tasks.espnet_model import ESPnetVocoderModel

#: Fewer than LOOKED_AT would all be looked at.
UTTS = 20


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with sets and a run of one epoch."""
    root = tmp_path_factory.mktemp("made")
    tiny_corpus.make_corpus(root / "train", n_utts=UTTS, seconds=0.1)
    tiny_corpus.make_corpus(root / "valid", n_utts=3)
    train(root, root / "exp", max_epoch=1)
    return root


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """Return a copy, whose lists name files in it."""
    root = shutil.copytree(made, tmp_path / "copy", symlinks=True)
    for scp in root.glob("*/*.scp"):
        scp.write_text(scp.read_text().replace(str(made), str(root)))
    return root


def train(root: Path, exp: Path, **changes: object) -> None:
    """Train or go on."""
    options = {"num_workers": 0, "sample_interval": 0, "use_matplotlib": "false", "max_epoch": 2, **changes}
    main(tiny_corpus.train_options(root / "train", root / "valid", exp, **options))


def other_features(root: Path) -> None:
    feats = {utt: np.array(value) for utt, value in open_feats(root / "train/feats.scp").items()}
    with ArkWriter(root / "train/feats.ark", root / "train/feats.scp") as writer:
        for utt, value in feats.items():
            writer[utt] = value[::-1]  # of the same statistics


def other_audio(root: Path) -> None:
    for path in read_scp(root / "valid/wav.scp").values():
        wav, fs = soundfile.read(path, dtype="float32")
        soundfile.write(path, -wav, fs, subtype="FLOAT")


def fewer(root: Path) -> None:
    for name in ("wav.scp", "feats.scp", "utt2num_samples"):
        path = root / "train" / name
        write_scp(path, dict(list(read_scp(path).items())[: UTTS // 2]))


def other_order(root: Path) -> None:
    path = root / "train/utt2num_samples"
    write_scp(path, dict(reversed(read_scp(path).items())))


@pytest.mark.parametrize(
    "change, words",
    [
        (other_features, ["another training set: feats "]),
        (other_audio, ["another validation set: speech "]),
        (fewer, ["another training set: utterances 20 before, 10 now", "lengths "]),
        (other_order, ["another training set: lengths "]),
    ],
)
def test_another_set_is_refused_before_anything_is_written(
    copy: Path, change: Callable[[Path], None], words: list[str]
) -> None:
    change(copy)
    before = {path: path.read_bytes() for path in (copy / "exp").rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="this run can't go on with") as error:
        train(copy, copy / "exp")
    assert all(word in str(error.value) for word in words) and "--init_param" in str(error.value), error.value
    assert {path: path.read_bytes() for path in (copy / "exp").rglob("*") if path.is_file()} == before


def test_the_same_sets_in_another_place(copy: Path) -> None:
    train(copy, copy / "exp")
    assert (copy / "exp/2epoch.pth").exists()
    sets = yaml.safe_load((copy / "exp/config.yaml").read_text())["trained_on"]
    assert sets["train"]["utterances"] == UTTS and set(sets["valid"]) == {"utterances", "lengths", "speech", "feats"}


def test_a_run_of_an_older_version_names_no_sets(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other_features(copy)
    with monkeypatch.context() as older:
        older.setattr("flowavenet_plugin.tasks.starting_point.check_same_sets", lambda *_: None)
        train(copy, copy / "exp")  # as it would have gone on
    train(copy, copy / "exp", max_epoch=3)


def test_another_set_in_the_middle_of_an_epoch(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, calls = ESPnetVocoderModel.forward, []

    def forward(self: ESPnetVocoderModel, *args: object, **kwargs: object) -> object:
        calls.append(None)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGTERM)
        return plain(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(ESPnetVocoderModel, "forward", forward)
        with pytest.raises(SystemExit):
            train(copy, copy / "exp")
    fewer(copy)
    with pytest.raises(ValueError, match="another training set: utterances 20 before, 10 now"):
        train(copy, copy / "exp")


def test_a_broken_middle_of_an_epoch_says_what_is_lost(copy: Path) -> None:
    (copy / "exp/stopped.pth").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ValueError, match=r"stopped\.pth is broken: .* goes on after that epoch"):
        train(copy, copy / "exp")
    (copy / "exp/stopped.pth").unlink()
    train(copy, copy / "exp")  # as it said
