"""Kaldi file lists and what they point at: the door to lists, features and audio for all outside this folder.

Nothing behind it ever runs a command or unpickles: in Kaldi a list entry may be a shell pipe, and kaldiio's arks may
hold pickles, so entries and headers are checked before a reader sees them.
"""

from __future__ import annotations

from flowavenet_plugin.data.ark_writer import ArkWriter
from flowavenet_plugin.data.audio import read_audio
from flowavenet_plugin.data.feats_reader import FeatsGoneError, FeatsReader, check_arks, open_feats
from flowavenet_plugin.data.fit import check_feats, check_fit
from flowavenet_plugin.data.kaldiio_lists import check_holds_no_code
from flowavenet_plugin.data.lists import check_same_ids, find_listed, read_ids, read_scp, write_scp
from flowavenet_plugin.data.partial import atomic_open
from flowavenet_plugin.data.recordings import read_files

__all__ = [
    "ArkWriter",
    "FeatsGoneError",
    "FeatsReader",
    "atomic_open",
    "check_arks",
    "check_feats",
    "check_fit",
    "check_holds_no_code",
    "check_same_ids",
    "find_listed",
    "open_feats",
    "read_audio",
    "read_files",
    "read_ids",
    "read_scp",
    "write_scp",
]
