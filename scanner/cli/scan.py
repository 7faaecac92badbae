"""`adapter-scanner scan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scanner.cli import completing
from scanner.cli.options import resolve_settings, settings_flags
from scanner.cli.output import write_report
from scanner.cli.packs import chosen_packs
from scanner.cli.progress import Progress
from scanner.cli.status import EXIT_INCONCLUSIVE, exit_status
from scanner.errors import UsageError

if TYPE_CHECKING:
    from scanner.reports.text_report import Detail
    from scanner.results import Report, ScanResult, StaleAcceptance
    from scanner.scanning.cache import ResultCache
    from scanner.scanning.contents import Contents
    from scanner.scanning.settings import Settings
    from scanner.scanning.targets import Found
    from scanner.scanning.trust import InForce
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
      Not read where it lies in what is scanned.
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


_HOOK_HINT = """\
The commit is stopped because not everything could be judged. To stop flagged adapters alone, write
"fail-on: flagged" into .adapter-scanner.yaml, or "args: [--fail-on, flagged]" under the hook.
Adapters that nothing is known about then pass, unreadable ones too."""


@click.command("scan", epilog=_EPILOG)
@click.argument("targets", nargs=-1, metavar="TARGET...", shell_complete=completing.paths)
@settings_flags()
@click.option(
    "--hook", is_flag=True, help="The targets are changed files: scan the adapters they belong to."
)
@click.option(
    "--base-weights",
    type=click.Path(exists=True, path_type=Path),
    help="The targets are full fine-tunes: scan their difference from this base model.",
)
@click.option(
    "-q",
    "--quiet",
    is_flag=True,
    help="Text: show only what is not clear, and no notes. Standard error: errors alone.",
)
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="Text: show what is known of every adapter, whatever its verdict.",
)
@click.pass_context
def command(
    ctx: click.Context,
    /,
    targets: tuple[str, ...],
    config: Path | None,
    hook: bool,
    base_weights: Path | None,
    quiet: bool,
    verbose: bool,
    **flags: Any,
) -> None:
    """Scan adapters for known misalignment directions.

    A TARGET is a weight file, a directory (searched recursively), or an address on the hub:
    hf://owner/name[@revision][/subfolder].
    """
    if not targets and not hook:
        raise click.UsageError("missing argument 'TARGET...'", ctx)
    if quiet and verbose:
        raise UsageError("one of them says less, the other more", where="-q -v")
    if len(targets) == 1 and not hook:
        from scanner.formats.stores.ahead import begin_digest

        begin_digest(Path(targets[0]))
    # A hook runs for the owner of the repository, whose configuration it is.
    in_force = resolve_settings(config, flags, () if hook else targets)
    settings = in_force.settings
    if hook and settings.compose:
        raise UsageError("--hook scans each adapter by itself", where="--compose")

    from scanner.reports.terminal import printable
    from scanner.scanning.configuration import check_unread
    from scanner.scanning.exclusion import Exclusion
    from scanner.scanning.hook import changed_adapters
    from scanner.scanning.targets import against_base, find_all

    exclusion = Exclusion(settings.exclude)
    found = changed_adapters(targets, exclusion) if hook else find_all(targets, exclusion)
    if not quiet and (said := exclusion.in_words()):
        click.echo(f"adapter-scanner: {printable(said)}", err=True)
    if hook and not found:
        return
    if in_force.passed_over and all(item.files is None for item in found):
        check_unread(Path.cwd())
    if base_weights is not None:
        found = against_base(found, base_weights)
    report = make_report(found, chosen_packs(in_force), in_force, quiet=quiet)
    _write(report, settings, "quiet" if quiet else "verbose" if verbose else "usual")
    status = exit_status(report.open_verdicts, settings.fail_on)
    if hook and status == EXIT_INCONCLUSIVE:
        click.echo(_HOOK_HINT, err=True)
    ctx.exit(status)


def _write(report: Report, settings: Settings, detail: Detail) -> None:
    """Writes the report where the settings say."""
    output = Path(settings.output) if settings.output else None
    if settings.format == "text":
        from scanner.reports.terminal import UNLIMITED, Screen, standard_output
        from scanner.reports.text_report import render

        screen = standard_output() if output is None else Screen(width=UNLIMITED)
        write_report(render(report, screen, detail), output)
        return
    from scanner.reports import renderer

    write_report(renderer(settings.format)(report), output, for_machines=True)


def make_report(
    found: list[Found], signatures: list[Signature], in_force: InForce, *, quiet: bool = False
) -> Report:
    """Scans what was found, marks what the baseline accepts, and assembles the report.

    Raises:
        UsageError: If the settings cannot be honoured.
    """
    from datetime import date

    from scanner.reports.assemble import assemble
    from scanner.scanning.baseline import apply_baseline, load_baseline

    path = in_force.settings.baseline
    baseline = load_baseline(Path(path)) if path else None
    results = scan_found(found, signatures, in_force, quiet=quiet)
    stale: list[StaleAcceptance] = []
    if path is not None and baseline is not None:
        contents = contents_of(found, in_force)
        results, stale = apply_baseline(
            results, baseline, Path(path).parent, date.today(), contents
        )
    return assemble(results, signatures, stale, in_force.configuration)


def contents_of(found: list[Found], in_force: InForce) -> list[Contents]:
    """What lies around each result of `scan_found`."""
    from scanner.scanning.contents import together

    each = [item.contents() for item in found]
    if not in_force.settings.compose:
        return each
    return [together({item.target: part for item, part in zip(found, each, strict=True)})]


def scan_found(
    found: list[Found], signatures: list[Signature], in_force: InForce, *, quiet: bool = False
) -> list[ScanResult]:
    """One result per adapter, or one for the sum of all."""
    from scanner.scanning.targets import ScanOptions, scan_each, scan_sum

    settings = in_force.settings
    cache = _cache(signatures, in_force) if settings.cache else None
    options = ScanOptions(signatures, settings.alpha, settings.base_model, settings.jobs, cache)
    if settings.compose:
        return [scan_sum(found, options)]
    progress = Progress(settings.progress and not quiet)
    return [result for item in progress(found, "scanning") for result in scan_each([item], options)]


def _cache(signatures: list[Signature], in_force: InForce) -> ResultCache | None:
    """The results of earlier runs, unless somebody else may have written them."""
    from scanner.scanning.cache import ResultCache, run_key
    from scanner.system.folders import cache_folder

    folder = cache_folder()
    if in_force.trees.hold(folder):
        click.echo(
            f"adapter-scanner: {folder}: the cache lies in what is scanned, so it is not used",
            err=True,
        )
        return None
    settings = in_force.settings
    return ResultCache(folder, run_key(signatures, settings.alpha, settings.base_model))
