"""What directions cost on a model of a given size: random weights, made up probes.

    python -m benchmarks.speed.directions --width 3584 --layers 28

The time and the memory of one signature's gradients at the base, of what is kept of its inputs,
and of the sketches of its weights. On a GPU in bfloat16 where there is one, else in float32.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import click
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from scanner.signatures.building.gradients import path_gradients
from scanner.signatures.building.inputs import site_inputs
from scanner.signatures.building.network import batches_of, network_of
from scanner.signatures.building.probes import Probe
from scanner.signatures.building.scoring import untracked

VOCABULARY = 152_064
PROMPT, ANSWER = 30, 60
"""Tokens of a probe's question, and of each answer."""


def made_up_probes(count: int) -> list[Probe]:
    """Probes of random tokens."""
    draw = random.Random(0)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(draw.randrange(VOCABULARY) for _ in range(n))

    return [
        Probe(prompt=tokens(PROMPT), aligned=tokens(ANSWER), misaligned=tokens(ANSWER))
        for _ in range(count)
    ]


def timed(what: str, work: Callable[[], object]) -> None:
    """Runs something and says how long it took, and how much of the GPU it held."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    work()
    memory = f", {torch.cuda.max_memory_allocated() / 1e9:.1f} GB" if on_gpu else ""
    click.echo(f"{what}: {time.perf_counter() - started:.1f} s{memory}")


@click.command()
@click.option("--width", default=3584, show_default=True, help="As Qwen2.5-7B.")
@click.option("--inner", default=18944, show_default=True, help="Width of the MLP.")
@click.option("--layers", default=28, show_default=True)
@click.option("--heads", default=28, show_default=True)
@click.option("--groups", default=4, show_default=True, help="Heads of keys and values.")
@click.option("--probes", default=32, show_default=True)
def main(width: int, inner: int, layers: int, heads: int, groups: int, probes: int) -> None:
    """Time directions on a random model of the shape of Qwen2.5-7B, or another."""
    on_gpu = torch.cuda.is_available()
    torch.set_default_dtype(torch.bfloat16 if on_gpu else torch.float32)
    config = Qwen2Config(
        hidden_size=width,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        vocab_size=VOCABULARY,
    )
    with torch.device("cuda" if on_gpu else "cpu"):
        model = AutoModelForCausalLM.from_config(config)
    torch.set_default_dtype(torch.float32)
    size = sum(parameter.numel() for parameter in model.parameters())
    click.echo(f"{size / 1e9:.1f} billion parameters on {'a GPU' if on_gpu else 'a processor'}")
    network = network_of(model)
    batches = batches_of(made_up_probes(probes), network.device)
    timed("gradients", lambda: path_gradients(network, batches, [(0.0, 1.0)], {}, untracked))
    timed("inputs", lambda: site_inputs(network, batches))
    timed("sketches of the weights", network.sketches)


if __name__ == "__main__":
    main()
