"""Equal weights are equal files: the order in which the library writes metadata is another at every call."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from infra.config import ConfigError
from pipelines.models.safetensors_header import require_whole, sort_metadata

TENSORS = {"b": torch.ones(2), "a": torch.arange(3.0)}
METADATA = {"format": "pt", "lora_adapter_metadata": '{"r": 4, "é": 1}', "step": "3"}


def test_equal_weights_and_metadata_are_equal_bytes(tmp_path):
    path = tmp_path / "w.safetensors"
    written, sorted_ = set(), set()
    for _ in range(40):
        save_file(TENSORS, path, metadata=METADATA)
        written.add(path.read_bytes())
        sort_metadata(path)
        sorted_.add(path.read_bytes())
    assert len(written) > 1, "if the library sorts by itself, this file is no longer needed"
    assert len(sorted_) == 1


def test_tensors_and_metadata_are_read_as_before(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(TENSORS, path, metadata=METADATA)
    sort_metadata(path)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == METADATA
        assert all(torch.equal(file.get_tensor(name), value) for name, value in TENSORS.items())


def test_a_file_without_metadata_stays_as_it_is(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(TENSORS, path)
    before = path.read_bytes()
    sort_metadata(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("kept", [0, 4, 60, -1])
def test_a_file_that_is_cut_off_anywhere_is_refused_by_its_header(kept, tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(TENSORS, path, metadata=METADATA)
    require_whole(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ConfigError, match="w.safetensors is cut off or damaged"):
        require_whole(tmp_path)


def test_a_part_that_the_index_names_and_that_is_missing_is_refused(tmp_path):
    save_file(TENSORS, tmp_path / "w-1-of-2.safetensors")
    index = {"weight_map": {"a": "w-1-of-2.safetensors", "b": "w-2-of-2.safetensors"}}
    (tmp_path / "w.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match="w-2-of-2.safetensors is missing, but w.safetensors.index.json names it"):
        require_whole(tmp_path)
