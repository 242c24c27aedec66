"""Tables are exactly what their row class says, and damaged files are noticed."""

from dataclasses import dataclass

import pyarrow as pa
import pytest

from infra.store.tables import (
    DamagedFile,
    Image,
    TableError,
    check_schema,
    from_table,
    read_unrecorded,
    read_verified,
    schema_of,
    to_table,
    write_table,
)
from pipelines.schemas.samples import Picture


@dataclass(frozen=True)
class Thing:
    id: str
    share: float
    note: str | None
    tags: list[str]


THINGS = [Thing("a", 0.5, None, ["x"]), Thing("b", 1.0, "n", [])]


def test_rows_come_back_as_they_were():
    assert list(from_table(to_table(THINGS, Thing), Thing)) == THINGS


def test_a_null_where_none_may_be_names_the_column():
    with pytest.raises(TableError, match=r"Thing\.share must not be null"):
        to_table([Thing("a", None, None, [])], Thing)  # type: ignore[arg-type]


def test_a_wrong_type_names_the_column():
    with pytest.raises(TableError, match=r"Thing\.share must be double"):
        to_table([Thing("a", "high", None, [])], Thing)  # type: ignore[arg-type]


def test_a_wrong_schema_shows_both():
    with pytest.raises(TableError, match=r"(?s)found:.*other.*wanted:.*share"):
        check_schema(pa.table({"other": [1]}), Thing, place="here")


def test_the_same_table_gives_the_same_bytes(tmp_path):
    one = write_table(to_table(THINGS, Thing), tmp_path / "one.parquet")
    two = write_table(to_table(THINGS, Thing), tmp_path / "two.parquet")
    assert one.sha256 == two.sha256 and one.first == "a"


def test_every_flipped_byte_is_found_on_reading(tmp_path):
    path = tmp_path / "part-00000.parquet"
    record = write_table(to_table(THINGS, Thing), path)
    whole = path.read_bytes()
    for position in range(0, len(whole), 37):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(DamagedFile):
            read_verified(path, record)


def test_a_truncated_and_a_deleted_file_are_found(tmp_path):
    path = tmp_path / "part-00000.parquet"
    record = write_table(to_table(THINGS, Thing), path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedFile, match="bytes"):
        read_verified(path, record)
    with pytest.raises(DamagedFile):
        read_unrecorded(path)
    path.unlink()
    with pytest.raises(DamagedFile, match="gone"):
        read_verified(path, record)


def test_an_empty_table_is_typed():
    assert to_table([], Picture).schema.equals(schema_of(Picture), check_metadata=True)


def test_hugging_face_datasets_shows_pictures(tmp_path):
    from datasets import Image as Feature
    from datasets import load_dataset

    from actors.media import encode_png

    np = pytest.importorskip("numpy")
    picture = np.full((24, 24, 3), 7, np.uint8)
    rows = [Picture("i", "p", "a circle", "g", 0, 1, encode_png(picture), *picture.shape[:2])]
    write_table(to_table(rows, Picture), tmp_path / "part-00000.parquet")
    files = str(tmp_path / "part-00000.parquet")
    opened = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert isinstance(opened.features["image"], Feature)
    assert np.array_equal(np.asarray(opened[0]["image"]), picture)


def test_a_full_disk_leaves_no_file(tmp_path):
    import subprocess
    import sys

    code = f"""
import resource, signal, pathlib
from infra.store.tables import write_atomic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
folder = pathlib.Path({str(tmp_path)!r})
try:
    write_atomic(folder / "part-00000.parquet", b"x" * 5000)
except OSError as error:
    print(type(error).__name__, sorted(p.name for p in folder.iterdir()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "OSError []"


def test_image_is_bytes_and_path():
    assert Image(b"x").path is None
