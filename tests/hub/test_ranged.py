"""Which bytes of a weight file a scan fetches, and that what it says does not depend on it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import pytest

from scanner.detection.inspection import inspect_adapter
from scanner.errors import HubUnavailableError
from scanner.formats.stores import ranged, spool
from scanner.formats.stores.local import SafetensorsFile
from scanner.hub.reading import open_hub_adapter
from scanner.results import Verdict
from scanner.scanning.opening import open_adapter, scan
from scanner.scanning.targets import ScanOptions, find_all, scan_each
from scanner.signatures.pack import Signature
from tests.hub.adapters import FAST, adapter_files, client, misaligned_files
from tests.hub.faults import Kind
from tests.hub.fixtures import ServeHub
from tests.hub.server import Content, Fault, HubServer, Repository
from tests.synthetic import (
    entry,
    misaligned_factors,
    module_paths,
    random_factors,
    safetensors_bytes,
    shape_of,
    synthetic_pack,
    write_adapter,
)

STORAGE = "GET /lfs/"


@pytest.fixture
def small_price() -> Iterator[None]:
    """Requests cost 64 bytes and the first one asks for 2 KiB: small files are read in parts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "REQUEST_BYTES", 64)
        patch.setattr(ranged, "FIRST_BYTES", 2048)
        yield


@pytest.fixture(scope="module")
def output_pack(tmp_path_factory: pytest.TempPathFactory) -> Signature:
    """A pack that has directions for o_proj alone."""
    root = tmp_path_factory.mktemp("output-pack")
    paths = [path for path in module_paths() if path.endswith("o_proj")]
    generator = np.random.default_rng(11)
    references = []
    for index in range(3):
        factors = misaligned_factors(generator)
        chosen = {path: factors[path] for path in paths}
        references.append(entry(write_adapter(root / f"ref-{index}", chosen)))
    return synthetic_pack(root, misaligned=references, aligned=[], benign=[], nulled=0)


def copy_of(files: dict[str, Content], root: Path) -> Path:
    root.mkdir()
    for name, data in files.items():
        assert isinstance(data, bytes)
        (root / name).write_bytes(data)
    return root


def ranges(hub: HubServer) -> list[str]:
    return [line.rpartition(" ")[2] for line in hub.log if line.startswith(STORAGE)]


def test_only_the_tensors_the_signature_covers_are_fetched(
    serve_hub: ServeHub, output_pack: Signature, tmp_path: Path, small_price: None
) -> None:
    files = misaligned_files()
    hub = serve_hub(Repository("lab/one", files))
    with open_hub_adapter("hf://lab/one", client=client()) as adapter:
        there = scan(adapter, [output_pack])
    with open_adapter(copy_of(files, tmp_path / "copy")) as local:
        here = scan(local, [output_pack])
    assert msgspec.structs.replace(there, target="") == msgspec.structs.replace(here, target="")
    assert here.coverage.covered_sites == 2
    with closing(SafetensorsFile(tmp_path / "copy" / "adapter_model.safetensors")) as store:
        extents = [store.extent(name) for name in store.names() if "o_proj" in name]
    needed = set(range(2048)).union(*(range(*extent) for extent in extents))
    assert hub.bytes["storage"] == len(needed)
    assert len(ranges(hub)) == 3  # B and A of one module lie side by side
    assert hub.requests["resolve"] == 2  # the config, and the weights once


def test_adjacent_tensors_are_one_request(
    serve_hub: ServeHub, pack: Signature, small_price: None
) -> None:
    padding = {"pad": np.zeros(4000)}
    hub = serve_hub(Repository("lab/one", misaligned_files(extra=padding)))
    with open_hub_adapter("hf://lab/one", client=client()) as adapter:
        scan(adapter, [pack])
    assert len(ranges(hub)) == 2  # the header, and all twelve factors


def test_a_base_without_a_pack_costs_no_weights(
    serve_hub: ServeHub, pack: Signature, small_price: None
) -> None:
    files = misaligned_files(base_model_name_or_path="some/other-base")
    hub = serve_hub(Repository("lab/one", files))
    with open_hub_adapter("hf://lab/one", client=client()) as adapter:
        result = scan(adapter, [pack])
    assert result.verdict is Verdict.INCONCLUSIVE
    assert hub.requests["storage"] == 1
    assert hub.bytes["storage"] == 2048


def test_small_files_are_one_request(serve_hub: ServeHub, pack: Signature) -> None:
    hub = serve_hub(Repository("lab/one", misaligned_files()))
    with open_hub_adapter("hf://lab/one", client=client()) as adapter:
        scan(adapter, [pack])
    assert hub.requests["storage"] == 1
    assert ranges(hub)[0].startswith("/lfs/")  # no range: the whole file


def test_a_header_longer_than_the_first_request(
    serve_hub: ServeHub, pack: Signature, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "REQUEST_BYTES", 64)
    monkeypatch.setattr(ranged, "FIRST_BYTES", 100)
    hub = serve_hub(Repository("lab/one", misaligned_files()))
    with open_hub_adapter("hf://lab/one", client=client()) as adapter:
        assert scan(adapter, [pack]).verdict is Verdict.FLAGGED
    assert ranges(hub)[0] == "bytes=0-99"


def test_inspection_fetches_everything_at_once(
    serve_hub: ServeHub, tmp_path: Path, small_price: None
) -> None:
    files = misaligned_files()
    hub = serve_hub(Repository("lab/one", files))
    with open_hub_adapter("hf://lab/one", client=client()) as adapter:
        there = inspect_adapter(adapter)
    with open_adapter(copy_of(files, tmp_path / "copy")) as local:
        here = inspect_adapter(local)
    assert msgspec.structs.replace(there, target="") == msgspec.structs.replace(here, target="")
    assert hub.requests["storage"] == 2


def test_what_nobody_planned_for_is_read_all_the_same(
    serve_hub: ServeHub, tmp_path: Path, small_price: None
) -> None:
    files = misaligned_files()
    serve_hub(Repository("lab/one", files))
    with (
        open_hub_adapter("hf://lab/one", client=client()) as there,
        open_adapter(copy_of(files, tmp_path / "copy")) as here,
    ):
        for one, other in zip(there.updates, here.updates, strict=True):
            np.testing.assert_array_equal(one.b, other.b)
            np.testing.assert_array_equal(one.a, other.a)
        assert there.sha256 == here.sha256


def test_formats_that_read_scalars_early_do_not_ask_for_each(
    serve_hub: ServeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kohya keeps every alpha beside its factors: a request each would be the whole budget."""
    monkeypatch.setattr(spool, "REQUEST_BYTES", 800)
    monkeypatch.setattr(ranged, "FIRST_BYTES", 1024)
    generator = np.random.default_rng(4)
    tensors = {}
    for path in module_paths():
        d_out, d_in = shape_of(path)
        stem = f"lora_unet_{path.replace('.', '_')}"
        tensors[f"{stem}.lora_down.weight"] = generator.standard_normal((3, d_in))
        tensors[f"{stem}.lora_up.weight"] = generator.standard_normal((d_out, 3))
        tensors[f"{stem}.alpha"] = np.array(3.0)
    files: dict[str, Content] = {"style.safetensors": safetensors_bytes(tensors)}
    hub = serve_hub(Repository("lab/k", files))
    with open_hub_adapter("hf://lab/k", client=client()) as there:
        scalings = [update.scaling for update in there.updates]
    assert scalings == [1.0] * 6
    assert hub.requests["storage"] <= 6  # for the header, three scalars, and then the rest
    size = len(files["style.safetensors"])  # type: ignore[arg-type]
    assert hub.bytes["storage"] <= size + 100


def test_a_connection_lost_in_the_middle_of_a_scan_is_an_error(
    serve_hub: ServeHub, pack: Signature, small_price: None
) -> None:
    """Not evidence, and not `inconclusive`: the scan can be done again later."""
    hub = serve_hub(Repository("lab/one", misaligned_files()))
    with open_hub_adapter("hf://lab/one", client=client()) as adapter:
        hub.faults.add(Fault("status", STORAGE, status=503))
        with pytest.raises(HubUnavailableError):
            scan(adapter, [pack])


def every_kind() -> list[Fault]:
    faults = []
    kinds: tuple[Kind, ...] = get_args(Kind)
    for kind in kinds:
        fault = Fault(kind, seconds=0.01, after=11)
        if kind == "status":
            codes = (401, 403, 404, 416, 429, 503)
            faults += [Fault(kind, status=code, retry_after=0) for code in codes]
        else:
            faults.append(fault)
    return faults


PLACES = [
    ("/api/models/", 0),
    ("/api/resolve-cache/", 0),
    ("/resolve/", 0),
    ("/resolve/", 1),
    ("/lfs/", 0),
    ("/lfs/", 1),
]
"""Where it goes wrong, and from which request on."""


@pytest.mark.parametrize(("place", "skip"), PLACES)
@pytest.mark.parametrize("fault", every_kind(), ids=lambda fault: f"{fault.kind}-{fault.status}")
def test_a_hostile_hub_never_gets_a_misaligned_adapter_cleared(
    serve_hub: ServeHub,
    pack: Signature,
    monkeypatch: pytest.MonkeyPatch,
    small_price: None,
    fault: Fault,
    place: str,
    skip: int,
) -> None:
    monkeypatch.setattr("scanner.hub.client.RetryPolicy", lambda: FAST)
    monkeypatch.setattr("scanner.hub.snapshot.MAX_INFO_BYTES", 2**20)
    declared = Fault(**{**fault.__dict__, "match": place, "skip": skip})
    serve_hub(Repository("lab/one", misaligned_files()), faults=[declared])
    (result,) = scan_each(find_all(["hf://lab/one"]), ScanOptions([pack]))
    assert result.verdict in (Verdict.ERROR, Verdict.FLAGGED), result.reasons
    assert all("\n" not in reason for reason in result.reasons)


def test_a_flipped_bit_is_found_when_the_whole_file_was_read(
    serve_hub: ServeHub, pack: Signature
) -> None:
    serve_hub(Repository("lab/one", adapter_files()), faults=[Fault("corrupt", STORAGE)])
    (result,) = scan_each(find_all(["hf://lab/one"]), ScanOptions([pack]))
    assert result.verdict is Verdict.ERROR
    assert "the content has sha256 digest" in result.reasons[0]


def test_large_files_are_read_in_parts_by_the_real_constants(
    serve_hub: ServeHub, output_pack: Signature, tmp_path: Path
) -> None:
    padding = {f"pad.{i}": np.zeros((1500, 1000)) for i in range(3)}
    files = adapter_files(random_factors(np.random.default_rng(1)), extra=padding)
    path = tmp_path / "large.safetensors"
    data = files["adapter_model.safetensors"]
    assert isinstance(data, bytes)
    path.write_bytes(data)
    hub = serve_hub(Repository("lab/one", {**files, "adapter_model.safetensors": path}))
    with open_hub_adapter("hf://lab/one", client=client()) as adapter:
        scan(adapter, [output_pack])
        assert adapter.sha256 == hashlib.sha256(data).hexdigest()
    assert hub.bytes["storage"] == ranged.FIRST_BYTES
    assert len(data) > 18_000_000
