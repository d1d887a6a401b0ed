"""Features in the forms that users have: ranges, text, gzip, whole archives and HDF5."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import textwrap
from pathlib import Path

import kaldiio
import numpy as np
import pytest

from flowavenet_plugin.data.scp import check_arks, check_holds_no_code, open_feats, read_scp, write_scp

FEATS = {f"utt{i}": np.random.default_rng(i).normal(size=(5 + i, 4)).astype(np.float32) for i in range(3)}
#: What kaldiio takes for integers, as the first number looks like one, and then can't read; Kaldi prints such.
ROUND = np.array([[1, 0.5], [1e-5, -3]], np.float32)


def kaldi_text(feats: dict[str, np.ndarray]) -> bytes:
    """An archive as Kaldi prints it."""
    rows = {utt: "\n".join("  " + " ".join(f"{x:.9g}" for x in row) + " " for row in m) for utt, m in feats.items()}
    return "".join(f"{utt}  [\n{text}]\n" for utt, text in rows.items()).encode()


def in_archive(path: Path, content: bytes, packed: bool = False) -> Path:
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def binary_ark() -> bytes:
    file = io.BytesIO()
    kaldiio.save_ark(file, FEATS)
    return file.getvalue()


def one(tmp_path: Path, entry: str) -> Path:
    """A list of one utterance."""
    write_scp(tmp_path / "feats.scp", {"a": entry})
    return tmp_path / "feats.scp"


# Ranges


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("[1:3]", np.s_[1:4]),
        ("[0:6]", np.s_[0:7]),
        ("[2:2]", np.s_[2:3]),
        ("[1:3,0:1]", np.s_[1:4, 0:2]),
        ("[,1:3]", np.s_[:, 1:4]),
        ("[:,1:3]", np.s_[:, 1:4]),
    ],
)
def test_ranges_are_kaldis(tmp_path: Path, text: str, wanted: tuple[slice, ...]) -> None:
    kaldiio.save_ark(str(tmp_path / "a.ark"), FEATS, scp=str(tmp_path / "all.scp"))
    scp = one(tmp_path, read_scp(tmp_path / "all.scp")["utt2"] + text)
    expected = FEATS["utt2"][wanted]
    np.testing.assert_array_equal(open_feats(scp)["a"], expected)
    np.testing.assert_array_equal(kaldiio.load_scp(str(scp))["a"], expected)
    assert check_arks(scp) == {"a": expected.shape}
    check_holds_no_code(scp)  # training may have it


@pytest.mark.parametrize(
    "text, message",
    [
        ("[1:7]", r"a: frames 1 to 7 are wanted .*, but .*a.ark has 7 frames"),
        ("[0:1,2:4]", r"a: dimensions 2 to 4 are wanted .*, but .*a.ark has 4 dimensions"),
        ("[3:1]", r"a: '.*\[3:1\]' in .*: the range \[3:1\] can't be: first:last"),
        ("[-2:1]", r"a: .*the range \[-2:1\] can't be"),
        ("[x]", r"a: .*the range \[x\] can't be"),
        ("[]", r"a: .*the range \[\] names neither frames"),
        ("[0:1,0:1,0:1]", r"a: .*the range .* names neither frames"),
    ],
)
def test_impossible_ranges(tmp_path: Path, text: str, message: str) -> None:
    kaldiio.save_ark(str(tmp_path / "a.ark"), FEATS, scp=str(tmp_path / "all.scp"))
    scp = one(tmp_path, read_scp(tmp_path / "all.scp")["utt2"] + text)
    for read in (check_arks, lambda path: open_feats(path)["a"]):
        with pytest.raises(ValueError, match=message):
            read(scp)


# Text and gzip


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("text", [False, True])
def test_archives_in_lists_and_in_their_place(tmp_path: Path, text: bool, packed: bool) -> None:
    feats = {**FEATS, "round": ROUND} if text else FEATS
    content = kaldi_text(feats) if text else binary_ark()
    ark = in_archive(tmp_path / ("feats.ark" + ".gz" * packed), content, packed)
    starts = {utt: content.index(f"{utt} ".encode()) + len(utt) + 1 for utt in feats}
    write_scp(tmp_path / "feats.scp", {utt: f"{ark}:{starts[utt]}" for utt in reversed(feats)})
    for place in (tmp_path / "feats.scp", ark):
        found = open_feats(place)
        assert set(found) == set(feats) and check_arks(place) == {utt: feats[utt].shape for utt in found}
        for utt in found:
            assert found[utt].dtype == np.float32
            np.testing.assert_array_equal(found[utt], feats[utt])
    assert list(open_feats(ark)) == list(feats)


def test_a_text_archive_of_kaldiio(tmp_path: Path) -> None:
    kaldiio.save_ark(str(tmp_path / "a.ark"), FEATS, scp=str(tmp_path / "a.scp"), text=True)
    np.testing.assert_allclose(open_feats(tmp_path / "a.scp")["utt1"], FEATS["utt1"], rtol=1e-6)


def test_a_file_of_one_matrix(tmp_path: Path) -> None:
    kaldiio.save_mat(str(tmp_path / "a.mat"), FEATS["utt0"])
    np.testing.assert_array_equal(open_feats(one(tmp_path, f"{tmp_path}/a.mat[0:1]"))["a"], FEATS["utt0"][:2])


@pytest.mark.parametrize(
    "text, message",
    [
        ("a  [\n 1 2\n 3 ]\n", r"2 values in frame 0, but 1 in frame 1"),
        ("a  [\n 1 2\n 3 4 \n", r"isn't closed by '\]': it is truncated"),
        ("a  [ 1 2 3 ]\n", r"is a vector, here of 3 values"),
        ("a  [\n 1 2\n three four ]\n", r"found b'hr' among|found b'h"),
        ("a  [\n 1 2\n 3 4x ]\n", r"found b'x' among the values"),
        ("a  [\n 1 2\n 3 1.2.3 ]\n", r"could not convert string to float"),
        ("a  [ \n ]\n", r"holds no values"),
    ],
)
def test_damaged_text(tmp_path: Path, text: str, message: str) -> None:
    ark = in_archive(tmp_path / "a.ark", text.encode())
    with pytest.raises(ValueError, match=rf"a.ark: no features of an utterance at byte 0: .*({message})"):
        open_feats(ark)
    with pytest.raises(ValueError, match=rf"a: no features at byte 2 of .*a.ark.*: .*({message})"):
        check_arks(one(tmp_path, f"{ark}:2"))


def test_values_that_are_no_numbers_are_told_in_text_too(tmp_path: Path) -> None:
    ark = in_archive(tmp_path / "a.ark", b"a  [\n 1 nan\n inf 4 ]\n")
    with pytest.raises(ValueError, match="a: 2 of 4 features in .*a.ark are not finite"):
        open_feats(ark)["a"]


def test_damaged_archives_and_what_is_none(tmp_path: Path) -> None:
    whole = binary_ark()
    size = len(whole)
    with pytest.raises(ValueError, match=rf"utt2: .*cut.ark is truncated: {size} bytes expected, {size - 3} found"):
        open_feats(in_archive(tmp_path / "cut.ark", whole[:-3]))
    with pytest.raises(ValueError, match=r"more.ark: no features .* at byte \d+ \(after utt2\): found b'rest'"):
        open_feats(in_archive(tmp_path / "more.ark", whole + b"rest"))
    with pytest.raises(ValueError, match="twice.ark: utterance utt0 occurs twice: at byte"):
        open_feats(in_archive(tmp_path / "twice.ark", whole + whole))
    with pytest.raises(ValueError, match=r"cut.gz can't be unpacked: Compressed file ended"):
        open_feats(in_archive(tmp_path / "cut.gz", gzip.compress(whole)[:-20]))
    with pytest.raises(ValueError, match="list.gz is a gzip file, but not of an archive .*gunzip"):
        open_feats(in_archive(tmp_path / "list.gz", b"a a.npy\n", packed=True))
    with pytest.raises(ValueError, match="utterance utt0 .*a text archive, not a list"):
        read_scp(in_archive(tmp_path / "text.ark", kaldi_text(FEATS)))


@pytest.mark.parametrize("packed", [False, True])
def test_no_pickle_is_loaded_from_an_archive(tmp_path: Path, packed: bool) -> None:
    ark = in_archive(tmp_path / "a.ark", binary_ark() + b"evil PKL" + pickle.dumps(Touch(tmp_path / "marker")), packed)
    with pytest.raises(ValueError, match=r"after utt2\): found b'PKL"):
        open_feats(ark)
    with pytest.raises(ValueError, match="a: no features at byte"):
        open_feats(one(tmp_path, f"{ark}:{len(binary_ark()) + 5}"))["a"]
    assert not (tmp_path / "marker").exists()


class Touch:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_whatever_is_damaged_in_text_or_gzip_gives_features_or_one_error(tmp_path: Path) -> None:
    whole = {"text": kaldi_text({"a": ROUND}), "gz": gzip.compress(kaldi_text({"a": ROUND}))}
    rng = np.random.default_rng(0)
    for name, content in whole.items():
        for number in range(100):
            spoilt = bytearray(content)
            for place in rng.integers(0, len(spoilt), rng.integers(1, 4)):
                spoilt[place] = rng.integers(256)
            ark = in_archive(tmp_path / f"{name}{number}.ark", bytes(spoilt))
            try:
                assert np.isfinite(open_feats(one(tmp_path, f"{ark}:2"))["a"]).all()
            except ValueError as error:
                assert str(error).startswith("a: ") or str(ark) in str(error)


# What training reads


def test_every_form_can_be_copied_as_the_documentation_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    in_archive(tmp_path / "text.ark.gz", kaldi_text(FEATS), packed=True)
    write_scp(tmp_path / "feats.scp", {utt: f"text.ark.gz:{entry}" for utt, entry in zip("ab", (6, 6), strict=True)})
    text = (Path(__file__).parents[2] / "docs/files.md").read_text()
    start = text.index("from flowavenet_plugin.data.scp import ArkWriter")
    exec(textwrap.dedent(" " * 6 + text[start : text.index("\n\n", start)]))
    check_holds_no_code("new.scp")
    np.testing.assert_array_equal(kaldiio.load_scp("new.scp")["b"], FEATS["utt0"])


@pytest.mark.parametrize(
    "name, message",
    [
        ("text.ark:5", r"'.*text.ark:5' begins with b' ?\[.*docs/files.md"),
        ("feats.ark.gz:5", r"begins with b'.*docs/files.md"),
        ("feats.npy", r"begins with b'\\x93NUMP.*docs/files.md"),
        ("feats.h5", r"neither FILE nor FILE:OFFSET, which training reads: .*docs/files.md"),
        ("feats.ark:5[3:1]", r"the range \[3:1\] can't be"),
    ],
)
def test_what_kaldiio_would_not_read_is_told_before_training(tmp_path: Path, name: str, message: str) -> None:
    in_archive(tmp_path / "text.ark", kaldi_text({"utt0": FEATS["utt0"]}))
    in_archive(tmp_path / "feats.ark.gz", b"x" * 10000 + binary_ark(), packed=True)
    np.save(tmp_path / "feats.npy", FEATS["utt0"])
    with pytest.raises(ValueError, match=f"feats.scp: utterance a: .*{message}"):
        check_holds_no_code(one(tmp_path, f"{tmp_path}/{name}"))


# HDF5


def test_hdf5_of_parallel_wavegan(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="HDF5 is read by h5py")
    for utt, feats in FEATS.items():
        with h5py.File(tmp_path / f"{utt}.h5", "w") as file:
            file["wave"], file["feats"] = np.zeros(100, np.float32), feats
    with h5py.File(tmp_path / "all.h5", "w") as file:  # as ESPnet1 has them
        file.create_dataset("spk/utt1", data=FEATS["utt1"].astype(np.float64), compression="gzip")
    entries = {utt: f"{tmp_path}/{utt}.h5" for utt in FEATS}
    entries |= {"named": f"{tmp_path}/all.h5:spk/utt1", "ranged": f"{tmp_path}/utt2.h5[1:3]"}
    write_scp(tmp_path / "feats.scp", entries)
    feats = open_feats(tmp_path / "feats.scp")
    wanted = {**FEATS, "named": FEATS["utt1"], "ranged": FEATS["utt2"][1:4]}
    assert check_arks(tmp_path / "feats.scp") == {utt: wanted[utt].shape for utt in entries}
    for utt in entries:
        assert feats[utt].dtype == np.float32 and feats[utt].flags.writeable
        np.testing.assert_array_equal(feats[utt], wanted[utt])


def test_hdf5_that_can_not_be_taken(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="HDF5 is read by h5py")
    feats = FEATS["utt0"]
    raw = feats.tobytes()
    (tmp_path / "raw").write_bytes(raw)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["feats"], file["whole"], file["wave"] = feats, feats.astype(np.int32), np.zeros(10, np.float32)
        file["code"] = np.void(pickle.dumps(Touch(tmp_path / "marker")))
        file["elsewhere"] = h5py.ExternalLink("b.h5", "/feats")
        file.create_dataset("raw", feats.shape, np.float32, external=[(str(tmp_path / "raw"), 0, len(raw))])
    (tmp_path / "cut.h5").write_bytes((tmp_path / "a.h5").read_bytes()[:100])
    (tmp_path / "text.h5").write_text("no HDF5")
    messages = {
        "a.h5:none": r"it has no dataset 'none', but code, elsewhere, feats",
        "a.h5:whole": r"'whole' in it is no dataset of floats",
        "a.h5:code": r"'code' in it is no dataset of floats",
        "a.h5:wave": r"'wave' has the shape \(10,\); \(frames, dim\) is wanted",
        "a.h5:elsewhere": r"'elsewhere' in it is a link",
        "a.h5:raw": r"the values of 'raw' lie in other files",
        "a.h5:feats/more": r"'feats' in it is no group",
        "cut.h5": r"not a whole HDF5 file",
        "text.h5": r"not a whole HDF5 file",
        "a.h5[2:9]": r"frames 2 to 9 are wanted .*a.h5 has 5 frames",
    }
    for name, message in messages.items():
        scp = one(tmp_path, f"{tmp_path}/{name}")
        for read in (check_arks, lambda path: open_feats(path)["a"]):
            with pytest.raises(ValueError, match=rf"^a: .*({message})"):
                read(scp)
    assert not (tmp_path / "marker").exists()
    with pytest.raises(ValueError, match="a.h5 is an HDF5 file, not a list: write a list"):
        open_feats(tmp_path / "a.h5")


def test_hdf5_without_h5py(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (tmp_path / "a.h5").write_bytes(b"\x89HDF")
    with pytest.raises(ValueError, match="a: no features in .*a.h5: .* h5py, which is not installed: pip install h5py"):
        check_arks(one(tmp_path, f"{tmp_path}/a.h5"))
