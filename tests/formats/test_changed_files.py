"""A file that is written to while it is scanned has no verdict and no digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from scanner.errors import MalformedFileError
from scanner.formats.model import TensorStore, site_order
from scanner.formats.stores.sniff import open_store
from scanner.signatures.pack import Signature

VALUES = np.arange(4096, dtype=np.float32).reshape(64, 64)


def safetensors(path: Path) -> None:
    save_file({"weight": VALUES}, path)


def npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, weight=VALUES)


def pickled(path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"weight": torch.from_numpy(VALUES)}, path)


def gguf(path: Path) -> None:
    library = pytest.importorskip("gguf")
    writer = library.GGUFWriter(path, "llama")
    writer.add_tensor("weight", VALUES)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(params=[safetensors, npz, pickled, gguf], ids=lambda write: write.__name__)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "adapter_model.safetensors"
    write: Callable[[Path], None] = request.param
    write(path)
    os.utime(path, (1, 1))
    return path


def overwritten(path: Path, *, hidden: bool = False) -> None:
    """Changes one byte in place; hidden, the file's times say nothing happened to its content."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-2000, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    if hidden:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def closing(store: TensorStore, act: Callable[[], object]) -> None:
    try:
        act()
    finally:
        store.close()


def test_an_untouched_file_is_read_and_hashed(path: Path) -> None:
    store = open_store(path)
    assert np.array_equal(store.read("weight"), VALUES)
    assert store.sha256() == hashlib.sha256(path.read_bytes()).hexdigest()
    store.close()


@pytest.mark.parametrize("hidden", [False, True])
def test_a_file_written_to_has_no_digest(path: Path, hidden: bool) -> None:
    store = open_store(path)
    overwritten(path, hidden=hidden)
    with pytest.raises(MalformedFileError, match="changed while it was read"):
        closing(store, store.sha256)


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("hashed", [False, True])
def test_a_file_written_to_is_read_no_further(path: Path, hashed: bool, hidden: bool) -> None:
    """Also after its digest is known: what is judged next would be other bytes."""
    store = open_store(path)
    if hashed:
        assert store.sha256() == hashlib.sha256(path.read_bytes()).hexdigest()
    overwritten(path, hidden=hidden)
    if type(store).__name__ == "PickledFile":  # all of it was read when it was opened
        assert np.array_equal(store.read("weight"), VALUES)
        store.close()
        return
    # An archive's own checksum may notice first.
    with pytest.raises(MalformedFileError, match=r"changed while it was read|Bad CRC-32"):
        closing(store, lambda: store.read("weight"))


def test_a_file_swapped_for_another_never_gets_the_others_digest(path: Path) -> None:
    """What counts is what was opened, not what the name stands for by now."""
    store = open_store(path)
    other = path.with_name("other")
    other.write_bytes(b"something else")
    os.replace(other, path)
    with pytest.raises(MalformedFileError, match="changed while it was read"):
        closing(store, store.sha256)


def test_a_pack_can_be_updated_while_a_training_reads_the_old_one(pack: Signature) -> None:
    path = pack.path / "directions.safetensors"
    site = min(pack.sites, key=site_order)
    expected = pack.direction(site).u
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    os.replace(copy, path)
    assert np.array_equal(pack.direction(site).u, expected)
