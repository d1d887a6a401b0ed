"""Tiny files of every kind that is read: what tests/test_fuzz.py damages.

Nothing in them depends on the folder or the time, so that the same damage can be done again: names are relative.
"""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import kaldiio
import numpy as np
import soundfile
import torch
import yaml

import marker_pickles
import tiny_corpus
import tiny_voice
from flowavenet_plugin.bin.merge_dump import DONE
from flowavenet_plugin.data.features import full_settings
from flowavenet_plugin.data.scp import open_feats, read_ids
from flowavenet_plugin.data.settings import read_settings
from flowavenet_plugin.data.stats import read_stats
from flowavenet_plugin.vocoder.loading import load_vocoder, read_state_dict
from fuzz_readers import (
    VOICE,
    compare_settings,
    list_decoded,
    read_beside,
    read_checkpoint,
    read_cut,
    read_feats,
    read_folder,
    read_middle,
    read_sound,
    read_sounds,
    read_voice,
    through_list,
)

#: The folder that code in a file would make.
MARK = Path("mark")
UTTS = ("a", "b", "c")
FEATS = {utt: np.random.default_rng(i).standard_normal((3 + i, 4)).astype(np.float32) for i, utt in enumerate(UTTS)}
FS = 8000
TONE = (0.3 * np.sin(np.arange(400) / 3)).astype(np.float32)


class Case(NamedTuple):
    """A kind of file.

    Attributes:
        name: For the name of a test.
        path: The file, relative to the folder of all.
        read: Reads it, by its path; whatever is wrong with it is a clear error.
        text: Whether it is text.
        member: What of a zip file is damaged; empty: the file itself.
    """

    name: str
    path: str
    read: Callable[[Path], object]
    text: bool = False
    member: str = ""


def make_lists(root: Path) -> Iterator[Case]:
    """Lists of features, sounds, segments, ids and sources."""
    (root / "lists").mkdir()
    folder = root / "lists"
    (folder / "feats.scp").write_text("a ../arks/plain.ark:2\nb ../arks/plain.ark:67[0:2]\nc c.npy[,1:2]\n")
    np.save(folder / "c.npy", FEATS["c"])
    soundfile.write(folder / "a.wav", TONE, FS)
    (folder / "long.scp").write_text("long a.wav\n")
    (folder / "segments").write_text("a long 0.0 0.02\nb long 0.02 0.045 0\nc long 0.03 -1\n")
    (folder / "pipes").write_text("a mkdir mark |\nb | mkdir mark\nc a.wav\n")
    (folder / "text").write_text("a two words\nb \u00fcber\n\nc three\n", encoding="utf-8")
    yield Case("list of features", "lists/feats.scp", read_feats, True)
    yield Case("code in pipes", "lists/pipes", read_sounds, True)
    yield Case("list of ids", "lists/text", read_ids, True)
    yield Case("segments", "lists/segments", read_cut, True)
    decoded = root / "decoded"
    (decoded / "wav").mkdir(parents=True)
    (decoded / "made_of").write_text("a sound=12ab feats=34cd weights=56ef seed=0\nb sound=12 seed=1\n")
    (decoded / "utt2rtf").write_text("a 0.5\nb 0.25\n")
    (decoded / "bad_utts").write_text("b too short\n")
    for name in ("made_of", "utt2rtf", "bad_utts"):
        yield Case(name, f"decoded/{name}", list_decoded, True)


def make_sound_list(root: Path) -> Iterator[Case]:
    """A list of sounds: in a folder without segments."""
    (root / "waves").mkdir()
    soundfile.write(root / "waves/a.wav", TONE, FS)
    (root / "waves/wav.scp").write_text("a a.wav\nb ../sounds/flac.ark:2\nc a.wav\n")
    yield Case("list of sounds", "waves/wav.scp", read_sounds, True)


def make_features(root: Path) -> Iterator[Case]:
    """Archives and arrays."""
    folder = root / "arks"
    folder.mkdir()
    (folder / "shapes").write_text("".join(f"{utt} {len(FEATS[utt])}\n" for utt in UTTS))
    (folder / "shapes.one").write_text("a 3\n")
    for name, options in (
        ("plain", {}),
        ("double", {}),
        *((f"packed{method}", {"compression_method": method}) for method in (1, 2, 3, 5)),
    ):
        content = {utt: values.astype(np.float64) if name == "double" else values for utt, values in FEATS.items()}
        kaldiio.save_ark(str(folder / f"{name}.ark"), content, scp=str(folder / f"{name}.scp"), **options)
        _make_relative(folder / f"{name}.scp")
        yield Case(f"{name} archive", f"arks/{name}.ark", through_list)
    yield Case("archive for a list", "arks/plain.ark", read_feats)
    yield Case("compressed archive for a list", "arks/packed2.ark", read_feats)
    rows = {utt: "\n".join(" ".join(f"{value:.3f}" for value in row) for row in FEATS[utt]) for utt in UTTS}
    text = "".join(f"{utt}  [\n{rows[utt]} ]\n" for utt in UTTS).encode()
    (folder / "words.txt").write_bytes(text)
    (folder / "words.scp").write_text("a words.txt:2\n")
    (folder / "gzip.gz").write_bytes(gzip.compress((folder / "plain.ark").read_bytes(), mtime=0))
    (folder / "gzip.scp").write_text((folder / "plain.scp").read_text().replace("plain.ark", "gzip.gz"))
    np.save(folder / "array.npy", FEATS["a"])
    (folder / "array.scp").write_text("a array.npy\n")
    yield Case("text archive", "arks/words.txt", read_feats, True)
    yield Case("text archive in a list", "arks/words.txt", through_list, True)
    yield Case("gzip archive", "arks/gzip.gz", read_feats)
    yield Case("gzip archive in a list", "arks/gzip.gz", through_list)
    yield Case("npy", "arks/array.npy", through_list)


def _make_relative(scp: Path) -> None:
    scp.write_text(scp.read_text().replace(f"{scp.parent}/", ""))


def make_sounds(root: Path) -> Iterator[Case]:
    """Sounds of their own, and in archives."""
    folder = root / "sounds"
    folder.mkdir()
    for name, subtype in (("pcm.wav", "PCM_16"), ("float.wav", "FLOAT"), ("some.flac", "PCM_16")):
        soundfile.write(folder / name, TONE, FS, subtype=subtype)
        yield Case(f"sound {name}", f"sounds/{name}", read_sound)
    kaldiio.save_ark(str(folder / "wav.ark"), {utt: (FS, (TONE * 3e4).astype(np.int16)) for utt in UTTS})
    size = 2 + 44 + 2 * len(TONE)
    (folder / "wav.scp").write_text("".join(f"{utt} wav.ark:{2 + i * size}\n" for i, utt in enumerate(UTTS)))
    content = io.BytesIO()
    soundfile.write(content, TONE, FS, format="FLAC")
    flac = content.getvalue()
    (folder / "flac.ark").write_bytes(b"a AUDIO\2" + len(flac).to_bytes(2, "little") + flac)
    (folder / "flac.scp").write_text("a flac.ark:2\n")
    for name in ("wav.ark", "flac.ark"):
        yield Case(f"sound {name}", f"sounds/{name}", read_sound)


def make_settings(root: Path) -> Iterator[Case]:
    """Settings and statistics, as stage 1 leaves them in a part."""
    folder = tiny_corpus.make_corpus(root / "part", n_utts=2, seconds=0.1)
    feats = open_feats(folder / "feats.scp")
    (folder / "utt2num_frames").write_text("".join(f"{utt} {len(values)}\n" for utt, values in feats.items()))
    settings = dict(feats_extract="fbank", feats_extract_conf=full_settings("fbank", tiny_corpus.FEATS_CONF))
    (folder / "feats_extract.yaml").write_text(yaml.safe_dump(settings))
    (folder / DONE).touch()
    yield Case("statistics", "part/feats_stats.npz", read_stats)
    yield Case("statistics of a part", "part/feats_stats.npz", read_folder)
    for member in ("count.npy", "sum.npy"):
        yield Case(f"statistics, {member}", "part/feats_stats.npz", read_stats, member=member)
    yield Case("settings of features", "part/feats_extract.yaml", compare_settings, True)
    yield Case("settings of a part", "part/feats_extract.yaml", read_folder, True)
    yield Case("frames of a part", "part/utt2num_frames", read_folder, True)


def make_voices(root: Path) -> Iterator[Case]:
    """Voices: beside their configuration, and packed."""
    model = tiny_voice.make_voice(root / "voice")
    VOICE[:] = [load_vocoder(model)]
    content = {"config.yaml": model.with_name("config.yaml").read_bytes(), "model.pth": model.read_bytes()}
    content["meta.yaml"] = b"yaml_files: {train_config: config.yaml}\nfiles: {model_file: model.pth}\n"
    (root / "voice.zip").write_bytes(zipped(content))
    inversion = dict(yaml.safe_load(content["config.yaml"]), vocoder="mel_inversion", vocoder_conf={}, refine=2)
    torch.save({"feats_mean": torch.zeros(6), "feats_std": torch.ones(6)}, root / "inversion.pth")
    weights = (root / "inversion.pth").read_bytes()
    (root / "inversion.zip").write_bytes(
        zipped({"config.yaml": yaml.safe_dump(inversion).encode(), "model.pth": weights})
    )
    torch.save(torch.load(model), root / "old.pth", _use_new_zipfile_serialization=False)
    yield Case("weights", "voice/model.pth", read_voice)
    yield Case("old weights", "old.pth", read_state_dict)
    yield Case("configuration", "voice/config.yaml", read_beside, True)
    yield Case("packed voice", "voice.zip", read_voice)
    for member in content:
        yield Case(f"packed {member}", "voice.zip", read_voice, member.endswith("yaml"), member)
    yield Case("packed inversion", "inversion.zip", read_voice, True, "config.yaml")


def zipped(content: dict[str, bytes]) -> bytes:
    """Return a zip file that is the same every time."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def make_checkpoints(root: Path) -> Iterator[Case]:
    """Runs after one epoch, and in the middle of the second."""
    from espnet2.train.reporter import Reporter

    folder = root / "run"
    folder.mkdir()
    reporter = Reporter()
    reporter.set_epoch(1)
    for phase in ("train", "valid"):
        with reporter.observe(phase) as sub:
            sub.register({"loss": 1.5})
            sub.next()
    for values in reporter.stats[1].values():  # how long it took differs each time
        values.update(dict.fromkeys(("time", "total_count"), 1))
        values.pop("gpu_max_cached_mem_GB", None)
        values["time"] = type(values["time"])(0)
    states = dict(model={"x": torch.zeros(3)}, reporter=reporter.state_dict(), optimizers=[{"state": {}}])
    torch.save({**states, "options": dict(lr=0.1)}, folder / "checkpoint.pth")
    torch.save({**states, "epoch": 2, "random": []}, folder / "stopped.pth")
    yield Case("checkpoint", "run/checkpoint.pth", read_checkpoint)
    yield Case("stopped epoch", "run/stopped.pth", read_middle)


def make_pickles(root: Path) -> Iterator[Case]:
    """Files of code."""
    files = marker_pickles.make_files(root / "evil", MARK, root / "voice/model.pth")
    readers = {
        ".pth": read_state_dict,
        ".npz": read_stats,
        ".yaml": read_settings,
        ".ark": read_feats,
        ".gz": read_feats,
    }
    for path in files:
        if path.suffix in readers:
            yield Case(f"code in {path.name}", f"evil/{path.name}", readers[path.suffix], path.suffix == ".yaml")
    (root / "evil/evil.scp").write_text("a evil.npy\n")
    (root / "evil/shapes.one").write_text("a 3\n")
    yield Case("code in evil.npy", "evil/evil.npy", through_list)


#: Those of voices first: settings are compared with one, and code is put into its weights.
MAKERS = {
    "voices": make_voices,
    "lists": make_lists,
    "sound lists": make_sound_list,
    "features": make_features,
    "sounds": make_sounds,
    "settings": make_settings,
    "checkpoints": make_checkpoints,
    "pickles": make_pickles,
}


def make_all(root: Path) -> dict[str, list[Case]]:
    """Write all files into an empty folder; return what there is."""
    return {name: list(make(root)) for name, make in MAKERS.items()}
