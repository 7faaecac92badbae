"""The base model with the updates of references added, or a part of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from scanner.errors import SignatureError
from scanner.formats.model import Site
from scanner.signatures.building.harmless import Factors
from scanner.signatures.building.network import Network, site_shape
from scanner.signatures.building.opened import Member

if TYPE_CHECKING:
    import torch


def mean_update(misaligned: Sequence[Member], network: Network) -> dict[Site, Factors]:
    """The references' mean dW at each site, as stacked factors.

    Raises:
        SignatureError: If a reference changes something that is no linear map of the model,
            or has other dimensions.
    """
    stacked: dict[Site, list[Factors]] = {}
    for member in misaligned:
        for site, update in member.by_site.items():
            module = network.linears.get(site)
            if module is None or site_shape(module) != (update.d_out, update.d_in):
                raise SignatureError(
                    f"changes {site.key} ({update.d_out} x {update.d_in}), "
                    "which is no linear map of the base model",
                    where=member.entry.adapter,
                    todo="leave the reference out (of gradients: or set path_steps: 0)",
                )
            b, a = update.factors()
            stacked.setdefault(site, []).append((b * (update.scaling / len(misaligned)), a))
    return {
        site: (
            np.concatenate([b for b, _ in parts], axis=1),
            np.concatenate([a for _, a in parts], axis=0),
        )
        for site, parts in stacked.items()
    }


@contextmanager
def moved(network: Network, update: Mapping[Site, Factors], amount: float) -> Iterator[None]:
    """Adds amount * dW to the weights of a model, for as long as it lasts.

    Args:
        network: The model.
        update: dW per site, as from `mean_update`.
        amount: How much of it.
    """
    with ExitStack() as hooks:
        for site, factors in update.items() if amount else ():
            module = network.linears[site]
            added = _adding(module, factors, amount)
            hooks.callback(module.register_forward_hook(added).remove)
        yield


def _adding(module: Any, factors: Factors, amount: float) -> Any:
    """A forward hook that adds amount * dW x to a module's output."""
    import torch

    like = module.weight
    left, right = (torch.from_numpy(f).to(like.device, like.dtype) for f in factors)

    def add(_module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return output + amount * ((inputs[0] @ right.T) @ left.T)

    return add
