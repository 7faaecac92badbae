"""`adapter-scanner scan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scanner.cli.options import resolve_settings, settings_flags
from scanner.cli.output import write_report
from scanner.cli.packs import chosen_packs
from scanner.cli.progress import Progress
from scanner.cli.status import exit_status
from scanner.errors import UsageError
from scanner.scanning.settings import Settings

if TYPE_CHECKING:
    from scanner.results import Report, ScanResult
    from scanner.scanning.targets import Found
    from scanner.signatures.pack import Signature

_EPILOG = """\b
Verdicts:
  clear         everything was understood, and there is no overlap with known
                misalignment directions; it does not mean aligned
  flagged       more alike known misaligned adapters than benign ones are
  inconclusive  not everything could be judged; not a clear
  error         unreadable

\b
Exit status:
  0  every target is clear, or accepted by the baseline
  1  at least one is flagged
  2  usage or configuration error
  3  at least one is inconclusive or unreadable

\b
Files:
  .adapter-scanner.yaml, pyproject.toml [tool.adapter-scanner]
      Every long flag is a key: "fail-on: flagged". Flags win over the file.
  ~/.cache/adapter-scanner
      Results of unchanged adapters; $ADAPTER_SCANNER_CACHE moves it.
  ~/.local/share/adapter-scanner/signatures
      Packs beside those that ship; $ADAPTER_SCANNER_SIGNATURES adds more.

\b
Examples:
  adapter-scanner scan my-adapter/
  adapter-scanner scan adapters/ -f sarif -o report.sarif
  adapter-scanner scan first/ second/ --compose
  adapter-scanner scan hf://owner/name@main
  adapter-scanner scan adapters/ --fail-on flagged --baseline accepted.json
"""


@click.command("scan", epilog=_EPILOG)
@click.argument("targets", nargs=-1, metavar="TARGET...")
@settings_flags()
@click.option(
    "--hook", is_flag=True, help="The targets are changed files: scan the adapters they belong to."
)
@click.option(
    "--base-weights",
    type=click.Path(exists=True, path_type=Path),
    help="The targets are full fine-tunes: scan their difference from this base model.",
)
@click.pass_context
def command(
    ctx: click.Context,
    /,
    targets: tuple[str, ...],
    config: Path | None,
    hook: bool,
    base_weights: Path | None,
    **flags: Any,
) -> None:
    """Scan adapters for known misalignment directions.

    A TARGET is a weight file, a directory (searched recursively), or an address on the hub:
    hf://owner/name[@revision][/subfolder].
    """
    if not targets and not hook:
        raise click.UsageError("missing argument 'TARGET...'", ctx)
    settings = resolve_settings(config, flags)
    if hook and settings.compose:
        raise UsageError("--hook scans each adapter by itself", where="--compose")

    from scanner.reports import is_for_machines, renderer
    from scanner.scanning.hook import changed_adapters
    from scanner.scanning.targets import against_base, find_all

    found = changed_adapters(targets) if hook else find_all(targets)
    if hook and not found:
        return
    if base_weights is not None:
        found = against_base(found, base_weights)
    signatures = chosen_packs(settings.signature)
    report = make_report(found, signatures, settings)
    write_report(
        renderer(settings.format)(report),
        Path(settings.output) if settings.output else None,
        for_machines=is_for_machines(settings.format),
    )
    ctx.exit(exit_status(report.open_verdicts, settings.fail_on))


def make_report(found: list[Found], signatures: list[Signature], settings: Settings) -> Report:
    """Scans what was found, marks what the baseline accepts, and assembles the report.

    Raises:
        UsageError: If the settings cannot be honoured.
    """
    from scanner.reports.assemble import assemble

    if settings.baseline is None:
        return assemble(scan_found(found, signatures, settings), signatures)

    from datetime import date

    from scanner.scanning.baseline import apply_baseline, load_baseline

    path = Path(settings.baseline)
    baseline = load_baseline(path)
    results = scan_found(found, signatures, settings)
    results, stale = apply_baseline(results, baseline, path.parent, date.today())
    return assemble(results, signatures, stale)


def scan_found(
    found: list[Found], signatures: list[Signature], settings: Settings
) -> list[ScanResult]:
    """One result per adapter, or one for the sum of all."""
    from scanner.scanning.cache import ResultCache, run_key
    from scanner.scanning.targets import ScanOptions, scan_each, scan_sum
    from scanner.system.folders import cache_folder

    cache = None
    if settings.cache:
        run = run_key(signatures, settings.alpha, settings.base_model)
        cache = ResultCache(cache_folder(), run)
    options = ScanOptions(signatures, settings.alpha, settings.base_model, settings.jobs, cache)
    if settings.compose:
        return [scan_sum(found, options)]
    progress = Progress(settings.progress)
    return [result for item in progress(found, "scanning") for result in scan_each([item], options)]
