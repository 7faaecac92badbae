"""Command line of the trained attacks: `python -m benchmarks.redteam.trained`."""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.organisms.bases import base_names
from benchmarks.redteam.trained import page, run
from benchmarks.redteam.trained.attacks import STRENGTHS, declared
from scanner.signatures.pack import load_signature

COST = """\
Trains adapters to be misaligned and to pass the scan, and keeps what they do.

With two packs there are 114 adapters for each seed at the six strengths, with three packs 126. One
takes 7 to 12 seconds of a core on a base of the lab, training and scans. On SmolLM2-135M-Instruct
one took 31 seconds where processes shared a large GPU, and takes minutes of a core without a GPU.
A process that holds that model needs 2 GB of memory.

Results are written as they come, and what is there is not done again: after a kill, or when
--minutes are over, the same command goes on where it was.
"""


@click.command(help=COST)
@click.option(
    "--base",
    required=True,
    help=f"A base of the lab ({', '.join(base_names())}), or any name for a real one.",
)
@click.option("--base-path", default="", help="A real base: what transformers loads, or one GGUF.")
@click.option(
    "--packs",
    "--pack",
    "packs",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A pack of the base; several times.  [default for the lab: those that ship]",
)
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True)
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".cache/redteam"),
    show_default=True,
    help="Results: trained-BASE.jsonl.",
)
@click.option(
    "--attack", "wanted", multiple=True, help="Only attacks with this in `NAME | SETTINGS`."
)
@click.option(
    "--strength",
    "strengths",
    multiple=True,
    type=click.FloatRange(min=0, min_open=True),
    help=f"Of each penalty; several times.  [default: {', '.join(map(str, STRENGTHS))}]",
)
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--steps", type=click.IntRange(min=2), help="Of training.  [default: by base]")
@click.option("--bfloat16", is_flag=True, help="Run a real base in bfloat16, not in float32.")
@click.option(
    "--minutes",
    type=click.FloatRange(min=0),
    default=1e6,
    help="Begin no attack after this time; those in work are finished.  [default: none]",
)
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Page whose section on trained attacks is written from all results in the cache.",
)
def main(
    base: str,
    base_path: str,
    packs: tuple[Path, ...],
    jobs: int,
    cache: Path,
    wanted: tuple[str, ...],
    strengths: tuple[float, ...],
    seeds: int,
    steps: int | None,
    bfloat16: bool,
    minutes: float,
    out: Path | None,
) -> None:
    """Runs the attacks; `COST` is its help."""
    if base_path and not packs:
        raise click.UsageError("a real base needs its packs: --packs DIR, several times")
    if not base_path and base not in base_names():
        raise click.UsageError(f"no base {base!r} in the lab; a real one needs --base-path")
    found = packs or run.shipped_packs(base)
    signatures = [load_signature(path) for path in found]
    known = {site.layer for item in signatures for site in item.sites if site.layer is not None}
    attacks = [
        attack
        for attack in declared(
            [item.id for item in signatures], strengths or STRENGTHS, seeds, sorted(known)
        )
        if not wanted or any(word in attack.key for word in wanted)
    ]
    job = run.Job(base, base_path, tuple(map(str, found)), steps, bfloat16)
    path = cache / f"trained-{base}.jsonl"
    run.run(job, attacks, path, jobs, 60 * minutes, click.echo)
    click.echo(path)
    if out is not None:
        page.write_section(out, cache)
        click.echo(out)


if __name__ == "__main__":
    main()
