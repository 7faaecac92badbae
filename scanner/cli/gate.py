"""`adapter-scanner gate ...`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scanner.cli.options import resolve_settings, settings_flags
from scanner.cli.output import write_atomically, write_report
from scanner.cli.status import EXIT_INCONCLUSIVE, exit_status
from scanner.scanning.settings import Settings

if TYPE_CHECKING:
    from scanner.gates.judgement import Judgement
    from scanner.gates.policy import Decision
    from scanner.results import Report
    from scanner.scanning.targets import ScanOptions
    from scanner.scanning.trust import InForce

_NOT_POLICY = ("compose", "baseline", "fail_on", "exclude", "cache", "progress")
"""Settings of a scan that must not weaken a gate, or mean nothing to it."""
_NOT_FOR_VERSIONS = ("compose", "baseline", "exclude", "cache", "progress")

_KEY = click.option(
    "--key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File of the private key to sign with.  [default: $ADAPTER_SCANNER_SIGNING_KEY_FILE, or "
    "the key itself in $ADAPTER_SCANNER_SIGNING_KEY]",
)
_POLICY = click.option(
    "--policy",
    "policy_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Policy (YAML).",
)
_OVERRIDE = click.option(
    "--override",
    "override_reason",
    metavar="REASON",
    help="Let it pass against the verdict: needs --key with the key of a person whom the policy "
    "allows that. The reason is recorded.",
)


_STATUS = """\b
Exit status:
  0  the policy lets it pass
  1  refused: flagged
  2  usage, configuration or policy error
  3  refused for another reason: inconclusive, unreadable, required pack missing, ...
"""
_CHECK_EPILOG = f"""{_STATUS}
\b
Examples:
  adapter-scanner gate check my-adapter/
  adapter-scanner gate check my-adapter/ --policy gate.yaml --model team/my-adapter
  adapter-scanner gate check my-adapter/ --record verdict.json --key scanner.pem
"""
_PUSH_EPILOG = f"""{_STATUS}
\b
Examples:
  adapter-scanner gate push my-adapter/ team/my-adapter
  adapter-scanner gate push my-adapter/ team/my-adapter --policy gate.yaml --private
"""
_WANDB_EPILOG = f"""{_STATUS}
\b
Examples:
  adapter-scanner gate wandb team/project/my-adapter:v3 --policy gate.yaml --key scanner.pem
  adapter-scanner gate wandb team/project/my-adapter:candidate \\
      --link wandb-registry-model/adapters --alias production
"""
_MLFLOW_EPILOG = """\b
Exit status:
  0  every adapter in it is clear
  1  at least one is flagged
  2  usage or configuration error
  3  at least one is inconclusive or unreadable, or there is none; or the
     registry refused or could not be reached

\b
Examples:
  adapter-scanner gate mlflow models:/my-adapter/3
  adapter-scanner gate mlflow models:/my-adapter@candidate --key scanner.pem
"""


@click.group("gate")
def command() -> None:
    """Let nothing unjudged into a registry or a hub.

    A policy says which models are gated and what lets them pass; verdicts are signed, so that
    nobody can write one by hand.
    """


@command.command("check", short_help="Scan a directory and ask the policy.", epilog=_CHECK_EPILOG)
@click.argument("directory", type=click.Path(path_type=Path))
@_POLICY
@click.option("--model", metavar="NAME", help="The name the policy knows it by.")
@click.option(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the verdict as JSON here: what an attestation is made of.",
)
@_KEY
@_OVERRIDE
@settings_flags(without=_NOT_POLICY)
@click.pass_context
def check(
    ctx: click.Context,
    /,
    directory: Path,
    policy_file: Path | None,
    model: str | None,
    record: Path | None,
    key: Path | None,
    override_reason: str | None,
    config: Path | None,
    **flags: Any,
) -> None:
    """Scan everything in DIRECTORY and say whether the policy lets it pass.

    For the CI step in front of any registry. Exit status 0 only if it does; otherwise 1 for a
    flagged adapter, 3 for anything else. Without --policy, only "clear" passes.
    """
    from scanner.gates.hub_push import verdict_file
    from scanner.gates.judgement import judge_directory
    from scanner.gates.push_gate import PushGate

    in_force = resolve_settings(config, flags, [directory], unused=_NOT_POLICY)
    if policy_file is not None:
        in_force.trees.refuse(policy_file, where="--policy")
    gate = PushGate.of_file(policy_file, key, override_reason)
    name = model or directory.resolve().name
    gate.require_rule(name, named=model is not None)
    judgement = judge_directory(directory, _scan_options(in_force), model=name)
    decision = gate.decide(judgement)
    _show(judgement.report, in_force.settings)
    if record is not None:
        token = gate.token(judgement, decision)
        write_atomically(record, verdict_file(judgement, token, decision).encode())
    _say(name, decision)
    ctx.exit(_status(judgement, decision))


@command.command("push", short_help="Upload to the hub what passes.", epilog=_PUSH_EPILOG)
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("repository", metavar="REPO")
@_POLICY
@click.option("--revision", default="main", show_default=True, help="The branch to commit to.")
@click.option("--private", is_flag=True, help="If the repository has to be created: privately.")
@_KEY
@_OVERRIDE
@settings_flags(without=_NOT_POLICY)
@click.pass_context
def push(
    ctx: click.Context,
    /,
    directory: Path,
    repository: str,
    policy_file: Path | None,
    revision: str,
    private: bool,
    key: Path | None,
    override_reason: str | None,
    config: Path | None,
    **flags: Any,
) -> None:
    """Scan DIRECTORY and upload it to REPO on the Hugging Face hub if the policy lets it.

    What is uploaded is a private copy, made before the scan. The report goes into the commit,
    and the verdict into a section of the model card. The hub's token is huggingface_hub's
    (`hf auth login`, or $HF_TOKEN). Exit status as with `gate check`.
    """
    from tempfile import TemporaryDirectory

    from scanner.gates.hub_push import CARD, Upload, snapshot, upload
    from scanner.gates.judgement import judge_directory
    from scanner.gates.push_gate import PushGate

    in_force = resolve_settings(config, flags, [directory], unused=_NOT_POLICY)
    if policy_file is not None:
        in_force.trees.refuse(policy_file, where="--policy")
    gate = PushGate.of_file(policy_file, key, override_reason)
    gate.require_rule(repository, named=True)
    with TemporaryDirectory(prefix="adapter-scanner-") as scratch:
        files = Path(scratch, repository.rpartition("/")[2] or "model")
        files.mkdir()
        snapshot(directory, files)
        judgement = judge_directory(files, _scan_options(in_force), model=repository)
        decision = gate.decide(judgement)
        _show(judgement.report, in_force.settings)
        _say(repository, decision)
        if not decision.allowed:
            ctx.exit(_status(judgement, decision))

        from huggingface_hub import HfApi
        from huggingface_hub.utils import disable_progress_bars

        if not sys.stderr.isatty():
            disable_progress_bars()
        token = gate.token(judgement, decision)
        what = Upload(judgement, decision, token, revision, private)
        click.echo(upload(files, directory / CARD, repository, what, HfApi()), err=True)


@command.command("mlflow", short_help="Judge a registered model version.", epilog=_MLFLOW_EPILOG)
@click.argument("model_uri")
@_KEY
@settings_flags(without=_NOT_FOR_VERSIONS)
@click.pass_context
def mlflow(
    ctx: click.Context, /, model_uri: str, key: Path | None, config: Path | None, **flags: Any
) -> None:
    """Download and scan a version of a registered model, and write its verdict to its tags.

    MODEL_URI is models:/NAME/VERSION or models:/NAME@ALIAS, in the registry that
    $MLFLOW_TRACKING_URI names. Exit status as with `scan`; a version without any adapter is an
    error.
    """
    from scanner.gates.keys import load_signing_key
    from scanner.gates.mlflow_gate import (
        find_version,
        judge_version,
        parse_model_uri,
        registry_client,
    )

    in_force = resolve_settings(config, flags, unused=_NOT_FOR_VERSIONS)
    parse_model_uri(model_uri)
    signing_key = load_signing_key(key)
    client = registry_client()
    version = find_version(model_uri, client)
    options = _scan_options(in_force)
    judgement = judge_version(version.name, version.version, options, signing_key, client)
    _show(judgement.report, in_force.settings)
    ctx.exit(exit_status(judgement.report.open_verdicts, in_force.settings.fail_on))


@command.command("wandb", short_help="Link what passes.", epilog=_WANDB_EPILOG)
@click.argument("artifact")
@_POLICY
@click.option("--link", "target", metavar="COLLECTION", help="Link it there if it passes.")
@click.option("--alias", "aliases", multiple=True, help="Alias of the link; may be repeated.")
@_KEY
@_OVERRIDE
@settings_flags(without=_NOT_POLICY)
@click.pass_context
def wandb(
    ctx: click.Context,
    /,
    artifact: str,
    policy_file: Path | None,
    target: str | None,
    aliases: tuple[str, ...],
    key: Path | None,
    override_reason: str | None,
    config: Path | None,
    **flags: Any,
) -> None:
    """Fetch and scan an artifact of Weights & Biases, and link it to a registry if it passes.

    ARTIFACT is entity/project/name:version, and COLLECTION a collection of the registry. The
    verdict goes into the artifact's metadata, signed if there is a key. Exit status as with
    `gate check`.
    """
    from tempfile import TemporaryDirectory

    from scanner.gates import wandb_gate
    from scanner.gates.push_gate import PushGate

    if aliases and target is None:
        raise click.UsageError("--alias names a link: say --link as well")
    in_force = resolve_settings(config, flags, unused=_NOT_POLICY)
    name = wandb_gate.ArtifactName.parse(artifact)
    gate = PushGate.of_file(policy_file, key, override_reason)
    gate.require_rule(name.name, named=True)
    with (
        TemporaryDirectory(prefix="adapter-scanner-") as scratch,
        wandb_gate.gate_run(name) as run,
    ):
        fetched = wandb_gate.fetch(run, name, Path(scratch))
        judgement = wandb_gate.judge(Path(scratch), name, _scan_options(in_force))
        decision = gate.decide(judgement)
        _show(judgement.report, in_force.settings)
        wandb_gate.record(fetched, judgement, decision, gate.token(judgement, decision))
        _say(str(name), decision)
        if decision.allowed and target is not None:
            wandb_gate.link(run, fetched, target, aliases)
    ctx.exit(_status(judgement, decision))


@command.command("override", short_help="Let a version pass, for a reason.")
@click.argument("model_uri")
@click.option("--reason", required=True, help="Why it may pass; everybody can read it.")
@click.option(
    "--days",
    type=click.IntRange(1, 3650),
    default=30,
    show_default=True,
    help="How long it may.",
)
@_KEY
def override(model_uri: str, reason: str, days: int, key: Path | None) -> None:
    """Let a version of a registered model pass against its verdict, for a recorded reason.

    The key must be that of a person whom the policy allows it. The decision is about the
    version's files as they were judged, and is written to its tags.
    """
    from scanner.gates.keys import load_signing_key
    from scanner.gates.mlflow_gate import (
        find_version,
        override_version,
        parse_model_uri,
        registry_client,
    )
    from scanner.gates.push_gate import check_override_reason

    check_override_reason(reason)
    parse_model_uri(model_uri)
    signing_key = load_signing_key(key)
    client = registry_client()
    version = find_version(model_uri, client)
    record = override_version(version, reason, days, signing_key, client)
    click.echo(f"{model_uri}: overridden until {record.expires:%Y-%m-%d}", err=True)


@command.command("keygen", short_help="Make a key pair.")
@click.argument("file", type=click.Path(path_type=Path))
def keygen(file: Path) -> None:
    """Make a key pair: the private key in FILE, the public key on standard output.

    The public key goes into the policy, under scanners: or people:. The private key stays
    where the scanner runs, or with the person.
    """
    from scanner.gates.keys import write_new_key

    click.echo(str(write_new_key(file)))


def _scan_options(in_force: InForce) -> ScanOptions:
    from scanner.cli.packs import chosen_packs
    from scanner.scanning.targets import ScanOptions

    settings = in_force.settings
    return ScanOptions(
        chosen_packs(in_force),
        settings.alpha,
        settings.base_model,
        settings.jobs,
        configuration=in_force.configuration,
    )


def _show(report: Report, settings: Settings) -> None:
    from scanner.reports import is_for_machines, renderer

    write_report(
        renderer(settings.format)(report),
        Path(settings.output) if settings.output else None,
        for_machines=is_for_machines(settings.format),
    )


def _say(name: str, decision: Decision) -> None:
    from scanner.reports.terminal import printable

    said = "allowed" if decision.allowed else "refused"
    click.echo(printable(f"{name}: {said}: {decision.reason}"), err=True)


def _status(judgement: Judgement, decision: Decision) -> int:
    """0 if it may pass; what is refused though it is clear lacks something else."""
    if decision.allowed:
        return 0
    return exit_status({judgement.attestation.verdict}) or EXIT_INCONCLUSIVE
