"""`adapter-scanner signatures ...`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from scanner.cli import completing
from scanner.cli.build import WORK, default_work, found_on_hub, tell_worth
from scanner.cli.build import command as build
from scanner.cli.compare import command as compare
from scanner.cli.harden import command as harden
from scanner.cli.init import command as init
from scanner.cli.make import command as make
from scanner.cli.progress import Progress
from scanner.cli.review import command as review
from scanner.cli.status import EXIT_USAGE
from scanner.cli.written import written_as, written_to
from scanner.errors import UsageError

if TYPE_CHECKING:
    from scanner.signatures.pack import Signature
    from scanner.signatures.recipe import AdapterEntry, Benign
    from scanner.signatures.summary import PackSummary


@click.group("signatures")
def command() -> None:
    """List, show, make, build, harden, calibrate, review, import, pull, sign and verify packs."""


@command.command("list")
@written_as("text", "json")
@click.pass_context
def list_packs(ctx: click.Context, format_name: str) -> None:
    """List the installed packs, each with its digests verified.

    A damaged pack is listed as such and makes the exit status 2.
    """
    from scanner.signatures.installed import installed_packs, search_path
    from scanner.signatures.summary import as_json, pack_table, summarise_or_damage

    summaries = [summarise_or_damage(path) for path in installed_packs()]
    if format_name == "json":
        click.echo(as_json(summaries))
    elif summaries:
        click.echo(pack_table(summaries))
    else:
        roots = ", ".join(str(path) for path in search_path())
        click.echo(f"no packs in {roots}", err=True)
    _complain(ctx, summaries)


def _complain(ctx: click.Context, summaries: list[PackSummary]) -> None:
    """Lists damaged packs, and exits with status 2 if there are any."""
    for damaged in (item.damage for item in summaries if item.damage):
        click.echo(f"adapter-scanner: {damaged}", err=True)
    if any(item.damage for item in summaries):
        ctx.exit(EXIT_USAGE)


@command.command("show")
@click.argument("packs", nargs=-1, required=True, shell_complete=completing.packs)
@written_as("text", "json", "html")
@written_to
def show(packs: tuple[str, ...], format_name: str, output: Path | None) -> None:
    """Show what PACKS are made of, what their calibrations support and what they find.

    Each is a directory, or the name of an installed pack. Of several packs of one base it is also
    said what they find together, as a verdict that rests on all of them does. As html: one page
    with pictures of each pack's scores by family, of what it finds at which price, and of where it
    lives in the network.
    """
    from scanner.cli.output import write_report
    from scanner.signatures.installed import find_pack
    from scanner.signatures.pack import load_signature

    signatures = [load_signature(find_pack(pack)) for pack in packs]
    if format_name == "html":
        from scanner.reports.pack_html import render

        text = render(signatures)
    else:
        text = _shown(signatures, format_name)
    write_report(text, output, for_machines=format_name != "text")


def _shown(signatures: list[Signature], format_name: str) -> str:
    """One or several packs as text or JSON."""
    from scanner.signatures.summary import (
        as_json,
        details,
        joint_details,
        summarise_pack,
        summarise_several,
    )

    if format_name == "json":
        one = len(signatures) == 1
        found = summarise_pack(signatures[0]) if one else summarise_several(signatures)
        return f"{as_json(found)}\n"
    parts = [details(summarise_pack(signature), signature) for signature in signatures]
    parts += [joint_details(signatures)] if len(signatures) > 1 else []
    return "\n\n".join(parts) + "\n"


@command.command("verify")
@click.argument("packs", nargs=-1, shell_complete=completing.packs)
@click.option(
    "--public-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Check too that each is signed by the holder of this key (PEM).",
)
@click.pass_context
def verify(ctx: click.Context, packs: tuple[str, ...], public_key: Path | None) -> None:
    """Check the digests of PACKS (directories or names of installed ones; default: all)."""
    from scanner.signatures.installed import find_pack, installed_packs
    from scanner.signatures.summary import summarise_or_damage

    paths = [find_pack(pack) for pack in packs] if packs else installed_packs()
    summaries = [summarise_or_damage(path, public_key) for path in paths]
    for item in summaries:
        if not item.damage:
            click.echo(f"ok  {item.path}  {item.id}  {item.digest}")
    _complain(ctx, summaries)


@command.command("recipes")
@written_as("text", "json")
def recipes(format_name: str) -> None:
    """List the recipes that ship, with the command that builds each."""
    from scanner.signatures.installed import shipped_recipes
    from scanner.signatures.summary import as_json, recipe_lines, summarise_recipe

    summaries = [summarise_recipe(path) for path in shipped_recipes()]
    click.echo(as_json(summaries) if format_name == "json" else recipe_lines(summaries))


command.add_command(build)
command.add_command(init)
command.add_command(harden)
command.add_command(make)
command.add_command(review)
command.add_command(compare)


@command.command("calibrate")
@click.argument("pack", shell_complete=completing.packs)
@click.option(
    "--benign",
    multiple=True,
    metavar="TARGET",
    help="A benign adapter, or a directory of them (repeatable); the folder below it that each "
    "lies in is its family.",
)
@click.option(
    "--benign-list",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="YAML: benign: [{adapter, family}, ...], or benign: {hub: {base_model: ...}}.",
)
@WORK
@click.option("--no-progress", is_flag=True, help="Show no progress bar.")
def calibrate(
    pack: str,
    benign: tuple[str, ...],
    benign_list: Path | None,
    work: Path | None,
    no_progress: bool,
) -> None:
    """Calibrate a PACK on benign adapters it was not built from.

    Replaces the calibration the pack had. An interrupted search of the hub that is run again goes
    on where it was.
    """
    from scanner.signatures.building.calibrate import calibrate_pack
    from scanner.signatures.recipe import BenignQuery
    from scanner.signatures.recipe_file import load_benign_list

    listed = load_benign_list(benign_list) if benign_list else []
    if isinstance(listed, BenignQuery):
        if benign:
            raise UsageError("--benign beside a list that is a hub query", todo="give one of them")
        chosen: Benign = listed
    else:
        chosen = [*listed, *(entry for target in benign for entry in _entries_of(target))]
    if not chosen:
        raise UsageError("no benign adapters", todo="give --benign or --benign-list")
    place = (work or default_work(pack)) if isinstance(chosen, BenignQuery) else None
    signature = calibrate_pack(pack, chosen, Progress(not no_progress), place)
    assert signature.calibration is not None, "it has just been calibrated"
    count = len(signature.calibration.benign)
    click.echo(f"{pack}: calibrated on {count} benign adapters; digest {signature.digest}")
    if isinstance(chosen, BenignQuery):
        for line in found_on_hub(signature):
            click.echo(f"  {line}", err=True)
    tell_worth(signature)


def _entries_of(target: str) -> list[AdapterEntry]:
    """The adapters in one --benign target."""
    from scanner.signatures.recipe import AdapterEntry
    from scanner.signatures.recipe_folders import expanded

    return expanded(AdapterEntry(adapter=target), Path(), "--benign")


@command.command("add-base")
@click.argument("pack", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("model", type=click.Path(exists=True, path_type=Path))
def add_base_weights(pack: Path, model: Path) -> None:
    """Add norms and sketches of the base MODEL's weights (safetensors) to a PACK.

    With them a scan tells adapters whose initialisation changed the base (PiSSA, OLoRA),
    whatever their config says. Packs made by gradients or activations have them already.
    """
    from scanner.signatures.building.base_weights import add_base

    signature = add_base(pack, model)
    kept = sum(signature.base_weight(site) is not None for site in signature.sites)
    click.echo(f"{pack}: {kept} weights sketched; digest {signature.digest}")


@command.command("pull")
@click.argument("source")
@click.option(
    "--digest", required=True, metavar="SHA256", help="The pack's digest, from whom you trust."
)
@click.option(
    "--public-key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The pack must be signed by the holder of this key (PEM).",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="PACK",
    help="Where to put it.  [default: among the user's packs, where scans find it]",
)
@click.option("--replace", is_flag=True, help="Another pack may stand in its place.")
def pull(
    source: str, digest: str, public_key: Path | None, output: Path | None, replace: bool
) -> None:
    """Fetch a pack from SOURCE, check it, and put it where scans find it.

    SOURCE is hf://owner/name[@revision][/folder], or the https:// address of a pack's folder or
    of a .tar, .tar.gz or .zip with one pack in it.
    """
    from scanner.signatures.distribution.pulled import Pull, pull_pack

    signature = pull_pack(Pull(source, digest.lower(), public_key, output, replace))
    click.echo(f"{signature.path}: {signature.id} {signature.digest}")


@command.command("sign")
@click.argument("pack", shell_complete=completing.packs)
@click.option(
    "--key",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Private key: an elliptic-curve key in a PEM file.",
)
def sign(pack: str, key: Path) -> None:
    """Sign a PACK with a key of your own, so that others can check who made it.

    Needs the extra: pip install 'adapter-scanner[sign]'.
    """
    from scanner.signatures.distribution.signing import sign_pack
    from scanner.signatures.installed import find_pack

    click.echo(f"signed: {sign_pack(find_pack(pack), key)}")


@command.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--base-model", required=True, metavar="ID", help="The base model it belongs to.")
@click.option("-o", "--output", required=True, metavar="PACK", help="Directory to write.")
@click.option(
    "--first-index",
    type=click.Choice(["embeddings", "block0"]),
    help="What index 0 of a stack is: the embeddings (then direction l, the output of block l, "
    "is index l+1), or the output of block 0. GGUF control vectors name their blocks.",
)
@click.option(
    "--layer",
    type=click.IntRange(0, 9999),
    metavar="L",
    help="For a single vector: the block, from 0, at whose output it lies.",
)
@click.option(
    "--position",
    type=int,
    metavar="N",
    help="Which token position of a (positions, layers, d) stack; -1 is the last.",
)
@click.option(
    "--key", metavar="NAME", help="Which tensor, or dict of them, if the file holds several sets."
)
@click.option("--id", "pack_id", metavar="NAME", help="The pack's name.")
@click.option(
    "--inputs",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Mean input of each residual-writing module: npz or safetensors, keys like "
    "12.mlp.down_proj. Without it the pack has no sign: evidence, never a verdict.",
)
@click.option(
    "--module",
    "modules",
    multiple=True,
    default=("self_attn.o_proj", "mlp.down_proj"),
    show_default=True,
    metavar="PATH",
    help="Residual-writing module, without --inputs (repeatable; GPT-2: attn.c_proj, mlp.c_proj).",
)
@click.option("--reverse", is_flag=True, help="The vectors point to the aligned side.")
@click.option("--licence", default="unknown", show_default=True, help="The file's licence.")
def import_vectors(
    file: Path,
    base_model: str,
    output: str,
    first_index: str | None,
    layer: int | None,
    position: int | None,
    key: str | None,
    pack_id: str | None,
    inputs: Path | None,
    modules: tuple[str, ...],
    reverse: bool,
    licence: str,
) -> None:
    """Make a pack from steering vectors: .pt, .npz, .npy, .safetensors or a GGUF control vector.

    FILE holds a stack of vectors, one per layer, a dict of them by layer, a stack by token position
    and layer, or a single vector. Where it leaves something open, the error says what it holds.

    Residual-stream directions say something about modules that write to the residual stream
    only (o_proj, down_proj and their like).
    """
    from scanner.signatures.building.imported import ImportOptions, import_pack
    from scanner.signatures.building.vectors import VectorOptions

    signature = import_pack(
        file,
        Path(output),
        ImportOptions(
            base_model=base_model,
            vectors=VectorOptions(first_index, key, layer, position, reverse),
            pack_id=pack_id,
            inputs=inputs,
            modules=modules,
            licence=licence,
        ),
    )
    kind = "signed" if inputs else "unsigned: evidence only, never a verdict"
    click.echo(f"{output}: {signature.id} {signature.digest} ({kind})")
