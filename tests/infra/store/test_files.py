"""Manifests are what stands below a folder now, and cost a hash only where something changed."""

import hashlib
import os
from pathlib import Path

import pytest

from infra.store import files
from infra.store.files import Manifest, manifest


def filled(folder: Path, names: dict[str, str]) -> Path:
    for name, text in names.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def hashed(monkeypatch):
    """Names of the files that are hashed from now on."""
    seen = []

    def noted(path):
        seen.append(Path(path).name)
        return sha(Path(path).read_text())

    monkeypatch.setattr(files, "sha256_of", noted)
    return seen


def test_every_file_is_there_in_the_order_of_names_but_prose(tmp_path):
    names = {"a/x": "1", "a-b/x": "2", "a.txt": "3", "z": "4", "a/sub/deep": "5", "README.md": "6", "a/notes.md": "7"}
    found = manifest(filled(tmp_path, names))
    wanted = sorted(name for name in names if not name.endswith(".md"))
    assert list(found) == wanted
    assert dict(found) == {name: sha(names[name]) for name in wanted}
    assert "a" not in found and "README.md" not in found and 3 not in found
    with pytest.raises(KeyError):
        found["a/none"]


def test_links_to_files_are_files_and_linked_folders_are_not_entered(tmp_path):
    folder = filled(tmp_path / "own", {"real": "1"})
    filled(tmp_path / "other", {"x": "2"})
    os.symlink(tmp_path / "other" / "x", folder / "linked")
    os.symlink(tmp_path / "other", folder / "entered")
    os.symlink(tmp_path / "nowhere", folder / "broken")
    assert dict(manifest(folder)) == {"linked": sha("2"), "real": sha("1")}


def test_only_what_changed_is_hashed_again(tmp_path, hashed):
    folder = filled(tmp_path, {"a": "1", "b": "2", "c": "3"})
    first = manifest(folder)
    assert sorted(hashed) == ["a", "b", "c"]
    hashed.clear()
    (folder / "b").write_text("22")
    (folder / "c").unlink()
    filled(folder, {"d": "4"})
    second = manifest(folder)
    assert sorted(hashed) == ["b", "d"]
    assert dict(second) == {"a": first["a"], "b": sha("22"), "d": sha("4")}


def test_a_change_that_leaves_the_size_is_seen_by_its_time(tmp_path, hashed):
    folder = filled(tmp_path, {"a": "1"})
    manifest(folder)
    (folder / "a").write_text("2")
    os.utime(folder / "a", ns=(1, 1))
    assert manifest(folder)["a"] == sha("2")


def test_the_digest_is_of_names_and_contents(tmp_path):
    one = manifest(filled(tmp_path / "one", {"a/b": "1", "c": "2"}))
    same = manifest(filled(tmp_path / "same", {"a/b": "1", "c": "2"}))
    assert one.digest == same.digest and len(one.digest) == 24
    others = [{"a/b": "2", "c": "1"}, {"a/b": "1", "d": "2"}, {"a/b": "1"}, {"a": "1", "bc": "2"}]
    digests = {manifest(filled(tmp_path / f"other{n}", names)).digest for n, names in enumerate(others)}
    assert len(digests) == len(others) and one.digest not in digests


def test_a_part_has_the_digests_of_the_whole(tmp_path):
    whole = manifest(filled(tmp_path, {"a": "1", "b": "2", "c": "3"}))
    part = whole.only(lambda name: name != "b")
    assert dict(part) == {"a": sha("1"), "c": sha("3")}
    assert whole.only(lambda name: True) is whole
    assert len(whole.only(lambda name: False)) == 0


def test_a_folder_that_is_not_there_has_no_files(tmp_path):
    assert len(manifest(tmp_path / "none")) == 0


def test_names_that_are_no_unicode_are_names(tmp_path):
    os.close(os.open(os.fsencode(tmp_path) + b"/\xff", os.O_CREAT))
    found = manifest(tmp_path)
    assert len(found) == 1 and isinstance(found, Manifest) and found.digest
