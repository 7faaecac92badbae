"""Static scanner for emergent misalignment in LoRA adapters.

    from scanner import load_signature, open_adapter, scan

    result = scan("path/to/adapter")
    result.verdict, result.dose, result.p_value

Names are imported when first used, so that ``import scanner`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from scanner.system.display import register

if TYPE_CHECKING:
    from scanner.errors import AdapterScannerError, TargetError, UsageError
    from scanner.formats.compose import compose
    from scanner.formats.model import Adapter, Site, Uncovered, Update
    from scanner.results import ScanResult, Verdict
    from scanner.scanning.opening import open_adapter, scan
    from scanner.signatures.pack import Signature, load_signature

    __version__: str

__all__ = [
    "Adapter",
    "AdapterScannerError",
    "ScanResult",
    "Signature",
    "Site",
    "TargetError",
    "Uncovered",
    "Update",
    "UsageError",
    "Verdict",
    "__version__",
    "compose",
    "load_signature",
    "open_adapter",
    "scan",
]

_HOME = {
    "Adapter": "scanner.formats.model",
    "AdapterScannerError": "scanner.errors",
    "ScanResult": "scanner.results",
    "Signature": "scanner.signatures.pack",
    "Site": "scanner.formats.model",
    "TargetError": "scanner.errors",
    "Uncovered": "scanner.formats.model",
    "Update": "scanner.formats.model",
    "UsageError": "scanner.errors",
    "Verdict": "scanner.results",
    "compose": "scanner.formats.compose",
    "load_signature": "scanner.signatures.pack",
    "open_adapter": "scanner.scanning.opening",
    "scan": "scanner.scanning.opening",
}

register("result", "scanner.reports.notebook:result_card")
register("signature", "scanner.reports.notebook:signature_card")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from scanner.version import version

        return version()
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'scanner' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
