"""Who reads the files of tests/fuzz_cases.py, by their path: whatever is wrong with them is a clear error."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from flowavenet_plugin.bin.merge_dump import add_stats, read_part
from flowavenet_plugin.data.audio import read_audio
from flowavenet_plugin.data.decoded import update_lists
from flowavenet_plugin.data.provenance import read_sources
from flowavenet_plugin.data.recordings import read_recordings
from flowavenet_plugin.data.scp import check_arks, check_holds_no_code, open_feats
from flowavenet_plugin.data.settings import read_settings
from flowavenet_plugin.tasks.best import past_figures
from flowavenet_plugin.tasks.compatibility import check_extracted
from flowavenet_plugin.tasks.saving import check_whole, epochs_of, finish_last_epoch
from flowavenet_plugin.tasks.stopped_epoch import read_stopped
from flowavenet_plugin.tasks.trained_on import describe_set
from flowavenet_plugin.vocoder.loading import load_vocoder, read_config, read_state_dict

#: The voice that settings are compared with.
VOICE: list[torch.nn.Module] = []


@contextmanager
def clear_errors(*names: object, member: str = "") -> Iterator[None]:
    """Let pass an error as a user may see it, that names a file (one of ``names``) and what of it; others fail."""
    try:
        yield
    except (ValueError, OSError) as error:
        named = any(str(name) in str(error) for name in names) and member in str(error)
        if isinstance(error, UnicodeError) or not named:
            raise AssertionError(f"doesn't name {' or '.join(map(str, names))}: {error!r}") from error


def read_feats(path: Path) -> None:
    """All features of a list or an archive; each may fail for itself."""
    feats = open_feats(path)
    files = [re.split(r"[:[]", entry)[0].rpartition("/")[2] for entry in feats.entries.values()]
    for utt in feats:
        with clear_errors(path, *files):
            shape = feats.shape(utt)
            values = feats[utt]
            assert values.shape == shape and np.isfinite(values).all(), f"{shape} {values}"
    with clear_errors(path, *files):
        check_arks(path)


def through_list(path: Path) -> None:
    """The features of an archive or array, by a list that is whole; and as training looks at them."""
    scp = path.with_suffix(".scp")
    read_feats(scp)
    if path.suffix == ".ark":
        check_holds_no_code(scp)
        shapes = scp.with_name("shapes")
        describe_set([(str(scp), "feats", "kaldi_ark")], [str(shapes)])
    elif path.suffix == ".npy":
        describe_set([(str(scp), "feats", "npy")], [str(scp.with_name("shapes.one"))])


def read_sounds(path: Path) -> None:
    """All sounds of a list; each may fail for itself."""
    for utt, recording in read_recordings(path, None).items():
        with clear_errors(path, recording.entry, recording.file):
            sound, fs = read_audio(recording.entry, utt, part=recording.part)
            assert sound.ndim == 1 and fs > 0


def read_cut(path: Path) -> None:
    """Utterances that segments cut."""
    for utt, recording in read_recordings(path.with_name("long.scp"), path).items():
        with clear_errors(recording.entry, recording.file):
            read_audio(recording.entry, utt, part=recording.part)


def read_sound(path: Path) -> None:
    """A sound, a part of it, and sounds in an archive at the place that its list names."""
    if path.suffix == ".ark":
        read_sounds(path.with_suffix(".scp"))
        return
    read_audio(path, "utt")


def read_voice(path: Path) -> None:
    """A voice, which may still speak or not; the weights alone."""
    load_vocoder(path)
    read_state_dict(path)


def read_beside(path: Path) -> None:
    """A voice by its configuration."""
    read_config(path)
    load_vocoder(path.with_name("model.pth"))


def read_checkpoint(path: Path) -> None:
    """What a run that goes on reads, and finishes."""
    check_whole(path)
    epochs_of(path)
    past_figures(path, "valid", "loss")
    with copied(path.parent) as folder:
        finish_last_epoch(folder, [("valid", "loss", "min")])


def read_middle(path: Path) -> None:
    """The middle of an epoch."""
    read_stopped(path.parent, 1)


def compare_settings(path: Path) -> None:
    """Settings of features, compared with a voice's."""
    check_extracted(read_settings(path), VOICE[0], path)


def read_folder(path: Path) -> None:
    """A part of stage 1."""
    with clear_errors(path.parent):  # what doesn't fit each other may be wrong in either file
        lists, _ = read_part(path.parent)
        add_stats([path.parent], sum(map(int, lists["utt2num_frames"].values())))


def list_decoded(path: Path) -> None:
    """The lists of a folder of sounds."""
    read_sources(path.parent)
    with copied(path.parent) as folder:
        update_lists(folder, ["a"], {}, [])


@contextmanager
def copied(folder: Path) -> Iterator[Path]:
    """Give a copy, for what writes."""
    with tempfile.TemporaryDirectory() as other:
        yield Path(shutil.copytree(folder, Path(other) / folder.name))
