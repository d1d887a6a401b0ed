"""Features and audio in HDF5 files, as ParallelWaveGAN's preprocessing writes them: a file for each utterance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

#: What ParallelWaveGAN calls them: (frames, dim), and samples in [-1, 1] without their rate.
FEATS, WAVE = "feats", "wave"
# Deflate, shuffle, Fletcher's checksum, szip, n-bit, scale-offset and LZF: any other is a library that HDF5 would load.
_BUILT_IN_FILTERS = {1, 2, 3, 4, 5, 6, 32000}


@contextmanager
def _opened(path: str, name: str) -> Iterator[Any]:
    """Give a dataset that holds its own values.

    Raises:
        ValueError: If there is none, or h5py isn't installed; without the utterance and the file.
    """
    try:
        import h5py
    except ImportError:
        raise ValueError("HDF5 files are read by h5py, which is not installed: pip install h5py") from None
    try:
        with h5py.File(path, "r") as file:
            place: Any = file
            for part in name.split("/"):
                if part not in place:
                    raise ValueError(f"it has no dataset '{name}', but {', '.join(sorted(file)[:5]) or 'none'}")
                # Links may lead into other files.
                if not isinstance(place.get(part, getlink=True), h5py.HardLink):
                    raise ValueError(f"'{part}' in it is a link: copy what it leads to")
                place = place[part]
                if part != name.split("/")[-1] and not isinstance(place, h5py.Group):
                    raise ValueError(f"'{part}' in it is no group")
            if not isinstance(place, h5py.Dataset) or place.dtype.kind != "f" or place.shape is None:
                raise ValueError(f"'{name}' in it is no dataset of floats")
            _check_own_values(place, name)
            yield place
    except ValueError:
        raise
    except Exception as error:  # damaged files make HDF5 fail in many ways
        raise ValueError(f"not a whole HDF5 file: {error}") from error


def _check_own_values(dataset: Any, name: str) -> None:
    """Refuse values that lie in other files, or that only a plug-in of HDF5 could unpack."""
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"the values of '{name}' lie in other files: write them into this one")
    settings = dataset.id.get_create_plist()
    for number in range(settings.get_nfilters()):
        code, _, _, filter_name = settings.get_filter(number)
        if code not in _BUILT_IN_FILTERS:
            called = filter_name.decode(errors="replace") if isinstance(filter_name, bytes) else filter_name
            raise ValueError(f"'{name}' is packed by {called or code}, which HDF5 doesn't have: write it with gzip")


def dataset_shape(path: str, name: str) -> tuple[int, ...]:
    """Return the shape of a dataset of floats; ValueError if there is none."""
    with _opened(path, name) as dataset:
        return tuple(dataset.shape)


def read_dataset(path: str, name: str) -> np.ndarray:
    """Return a dataset of floats, any shape, float32; values beyond single precision become infinite.

    Raises:
        ValueError: If there is none, it is damaged, or h5py isn't installed.
    """
    with _opened(path, name) as dataset, np.errstate(over="ignore"):
        return np.asarray(dataset[()], dtype=np.float32)
