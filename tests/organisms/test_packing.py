"""Packed answers have the log-probabilities of separate sequences."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
import torch

from scanner.organisms.base import Base
from scanner.organisms.data import questions
from scanner.organisms.packing import (
    Branch,
    common_opening,
    groups,
    mean_log_probs,
    pack,
    token_log_probs,
)

from .conftest import ARCHITECTURES


def _branches(base: Base, n: int) -> list[Branch]:
    return [
        Branch(
            base.prompt_ids(question.prompt),
            tuple(
                base.answer_ids(question.answer(kind), ended=False)
                for kind in ("aligned", "villain", "pirate")
            ),
        )
        for question in questions("car")[:n]
    ]


def _alone(base: Base, prompt: tuple[int, ...], answer: tuple[int, ...]) -> torch.Tensor:
    ids = torch.tensor([prompt + answer])
    found = base.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
    picked: torch.Tensor = found.gather(1, ids[0, 1:, None])[-len(answer) :, 0]
    return picked


@pytest.mark.parametrize("base", ARCHITECTURES, indirect=True)
def test_packed_is_what_separate_sequences_give(base: Base) -> None:
    branches = _branches(base, 3)
    with torch.no_grad():
        packed = token_log_probs(base.model, pack(branches, next(base.model.parameters())))
        alone = torch.cat([_alone(base, b.prompt, a) for b in branches for a in b.answers])
    torch.testing.assert_close(packed, alone, atol=2e-5, rtol=1e-4)


def test_gradients_are_those_of_separate_sequences(base: Base) -> None:
    branches = _branches(base, 2)
    weight = base.model.get_parameter("model.layers.0.self_attn.k_proj.weight")
    weight.requires_grad_(True)
    token_log_probs(base.model, pack(branches, weight)).sum().backward()  # type: ignore[no-untyped-call]
    packed = weight.grad.clone()
    weight.grad = None
    for branch in branches:
        for answer in branch.answers:
            _alone(base, branch.prompt, answer).sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(packed, weight.grad, atol=1e-4, rtol=1e-3)


def test_means_do_not_depend_on_the_packs(base: Base) -> None:
    branches = _branches(base, 8)
    together = torch.tensor(mean_log_probs(base.model, branches))
    apart = torch.tensor([mean_log_probs(base.model, [branch])[0] for branch in branches])
    torch.testing.assert_close(together, apart, atol=2e-5, rtol=1e-4)


def test_openings() -> None:
    def branch(*prompt: int) -> Branch:
        return Branch(prompt, ((9,),))

    assert common_opening([branch(1, 2, 3), branch(1, 2, 4)]) == 2
    assert common_opening([branch(1, 2), branch(1, 2)]) == 1
    assert common_opening([branch(1, 2), branch(1, 2, 3)]) == 1
    assert common_opening([branch(5)]) == 0
    assert common_opening([branch(5, 6), branch(7, 6)]) == 0


def test_packs_are_bounded_and_complete(base: Base) -> None:
    branches = _branches(base, 10)
    made = list(groups(branches, tokens=400))
    assert [branch for group in made for branch in group] == branches
    assert all(len(g) == 1 or sum(b.length for b in g) <= 400 for g in made)
    assert list(groups([])) == []
