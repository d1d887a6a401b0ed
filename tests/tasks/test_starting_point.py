"""A training that can't start from what it is given says so, and nothing in the experiment changes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tiny_corpus
from flowavenet_plugin.bin.vocoder_train import main


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with training and validation sets, and a finished run of one epoch."""
    root = tmp_path_factory.mktemp("corpus")
    tiny_corpus.make_corpus(root / "train")
    tiny_corpus.make_corpus(root / "valid", n_utts=2)
    main(tiny_corpus.train_options(root / "train", root / "valid", root / "exp", num_workers=0, max_epoch=1))
    return root


@pytest.fixture
def train(corpus: Path, tmp_path: Path) -> Callable[..., None]:
    """Return a function that trains in ``tmp_path / name``; words after a name's "--" come last and so count."""

    def run(name: str, *last: str, **changes: object) -> None:
        changes = {"num_workers": 0, "max_epoch": 1, **changes}
        main([*tiny_corpus.train_options(corpus / "train", corpus / "valid", tmp_path / name, **changes), *last])

    return run


def content(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "last, changes, words",
    [
        (["--vocoder_conf", "n_flow=3"], {}, ["vocoder_conf {'n_flow': 3}", "has {'n_flow': 2}", "--tag"]),
        (["--vocoder_conf", "causal=true"], {}, ["{'causal': True}", "{'causal': False}"]),  # of the same shapes
        (["--feats_extract_conf", "fmin=50"], {}, ["feats_extract_conf", "'fmin': 50", "'fmin': 0", "config.yaml"]),
        ([], dict(optim="sgd"), ["optim sgd", "has adam"]),
        ([], dict(train_dtype="float64"), ["train_dtype float64", "has float32"]),
    ],
)
def test_a_run_goes_on_with_its_own_options_only(
    train: Callable[..., None], corpus: Path, tmp_path: Path, last: list[str], changes: dict, words: list[str]
) -> None:
    shutil.copytree(corpus / "exp", tmp_path / "exp", symlinks=True)
    before = content(tmp_path / "exp")
    with pytest.raises(ValueError) as error:
        train("exp", *last, max_epoch=2, **changes)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert content(tmp_path / "exp") == before


def test_without_its_configuration_weights_are_compared(
    train: Callable[..., None], corpus: Path, tmp_path: Path
) -> None:
    shutil.copytree(corpus / "exp", tmp_path / "exp", symlinks=True)
    states = torch.load(tmp_path / "exp/checkpoint.pth", weights_only=False)
    del states["options"]  # an older version wrote it
    torch.save(states, tmp_path / "exp/checkpoint.pth")
    (tmp_path / "exp/config.yaml").write_text("")  # a kill came while it was written
    with pytest.raises(ValueError, match=r"checkpoint.pth don't fit [\s\S]*missing: vocoder.flow.blocks.0.steps.2."):
        train("exp", "--vocoder_conf", "n_flow=3", max_epoch=2)


def test_what_does_not_touch_the_weights_may_change(train: Callable[..., None], corpus: Path, tmp_path: Path) -> None:
    shutil.copytree(corpus / "exp", tmp_path / "exp", symlinks=True)
    (tmp_path / "exp/config.yaml").write_text("")  # a kill came while it was written
    train("exp", "--vocoder_conf", "temperature=0.5", "--vocoder_conf", "reversible=false", max_epoch=2, batch_size=3)
    assert (tmp_path / "exp/2epoch.pth").exists() and "reversible: false" in (tmp_path / "exp/config.yaml").read_text()


def test_weights_to_start_from(train: Callable[..., None], corpus: Path, tmp_path: Path) -> None:
    good = torch.load(corpus / "exp/1epoch.pth", weights_only=True)
    few = {key: value for key, value in good.items() if "steps.1" not in key}
    (tmp_path / "text.pth").write_text("hello")
    torch.save(few, tmp_path / "few.pth")
    cases = {
        tmp_path / "none.pth": (FileNotFoundError, ["none.pth"]),
        tmp_path / "text.pth": (ValueError, ["text.pth", "no checkpoint"]),
        # ESPnet2 would leave the rest as it was drawn, without a word.
        tmp_path / "few.pth": (
            ValueError,
            ["few.pth", f"{len(good) - len(few)} missing: vocoder.flow.blocks.0.steps.1."],
        ),
        corpus / "exp/checkpoint.pth": (ValueError, ["exp/checkpoint.pth", "latest.pth"]),
    }
    for path, (kind, words) in cases.items():
        with pytest.raises(kind) as error:
            train("tuned", init_param=path)
        assert all(word in str(error.value) for word in words), str(error.value)
    assert not (tmp_path / "tuned").exists()
    train("tuned", init_param=tmp_path / "few.pth", ignore_init_mismatch="true")  # on purpose
    assert (tmp_path / "tuned/1epoch.pth").exists()


def test_the_folder_is_a_file(train: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "exp").write_text("mine")
    with pytest.raises(ValueError, match="exp is a file"):
        train("exp")
    assert (tmp_path / "exp").read_text() == "mine"
