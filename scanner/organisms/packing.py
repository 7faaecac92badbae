"""Log-probabilities of given answers, without computing anything twice.

Questions of a pack and their answers form a tree: a common opening (the chat template's system
turn), the rest of each question, and the answers to it. The tree is written as one sequence in
which a token sees its ancestors alone and has the position it would have in its own sequence, so
that there is no padding, openings and questions run once, and the output layer is applied only
where a token of an answer is predicted. The numbers are those of separate sequences.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

TOKENS_PER_PACK = 384
"""Where measuring starts a new pack: the cost of attention grows with the square."""

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Branch:
    """A question and any number of answers to it, as token ids."""

    prompt: Ids
    answers: tuple[Ids, ...]

    @property
    def length(self) -> int:
        """Tokens in the pack, its common opening included."""
        return len(self.prompt) + sum(map(len, self.answers))


@dataclass(frozen=True)
class Pack:
    """Branches as one sequence of T tokens that predicts N tokens of A answers."""

    tokens: torch.Tensor
    """(1, T)."""
    positions: torch.Tensor
    """(1, T): the place of each token in a sequence of its own."""
    mask: torch.Tensor
    """(1, 1, T, T): 0 where a token sees another, the lowest number elsewhere."""
    source: torch.Tensor
    """(N,): the token at which each answer token is predicted."""
    target: torch.Tensor
    """(N,): the answer tokens."""
    owner: torch.Tensor
    """(N,): which answer each belongs to, counted through all branches."""
    answers: int


def common_opening(branches: Sequence[Branch]) -> int:
    """How many first tokens all prompts share; at least one token of each is left over."""
    first = branches[0].prompt
    longest = min(len(branch.prompt) for branch in branches) - 1
    for place in range(longest):
        if any(branch.prompt[place] != first[place] for branch in branches):
            return place
    return max(longest, 0)


def pack(branches: Sequence[Branch], like: torch.Tensor) -> Pack:
    """Writes branches as one sequence.

    Args:
        branches: what to pack.
        like: a parameter of the model; gives the device and the type of the mask.
    """
    import torch

    opening = common_opening(branches)
    tokens: list[int] = list(branches[0].prompt[:opening])
    positions = list(range(opening))
    source: list[int] = []
    target: list[int] = []
    owner: list[int] = []
    spans: list[tuple[slice, list[slice]]] = [(slice(0, opening), [])]
    answers = 0

    def add(ids: Ids, depth: int, ancestors: list[slice]) -> slice:
        span = slice(len(tokens), len(tokens) + len(ids))
        tokens.extend(ids)
        positions.extend(range(depth, depth + len(ids)))
        spans.append((span, ancestors))
        return span

    for branch in branches:
        asked = add(branch.prompt[opening:], opening, [slice(0, opening)])
        for answer in branch.answers:
            span = add(answer, len(branch.prompt), [slice(0, opening), asked])
            source += [asked.stop - 1, *range(span.start, span.stop - 1)]
            target += answer
            owner += [answers] * len(answer)
            answers += 1
    size = len(tokens)
    seen = torch.zeros((size, size), dtype=torch.bool)
    for span, ancestors in spans:
        seen[span, span] = torch.ones((span.stop - span.start,) * 2, dtype=torch.bool).tril()
        for ancestor in ancestors:
            seen[span, ancestor] = True
    mask = torch.zeros((1, 1, size, size), dtype=like.dtype)
    mask.masked_fill_(~seen, torch.finfo(like.dtype).min)
    device = like.device
    return Pack(
        torch.tensor([tokens], device=device),
        torch.tensor([positions], device=device),
        mask.to(device),
        torch.tensor(source, device=device),
        torch.tensor(target, device=device),
        torch.tensor(owner, device=device),
        answers,
    )


def token_log_probs(model: Any, packed: Pack) -> torch.Tensor:
    """Log-probability (N,) of every answer token, in float32."""
    from torch.nn.functional import cross_entropy

    logits = model(
        input_ids=packed.tokens,
        position_ids=packed.positions,
        attention_mask=packed.mask,
        use_cache=False,
        logits_to_keep=packed.source,
    ).logits[0]
    return -cross_entropy(logits.float(), packed.target, reduction="none")


def per_answer(values: torch.Tensor, packed: Pack) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum over each answer's tokens, and the number of tokens; both (A,)."""
    sums = values.new_zeros(packed.answers).index_add(0, packed.owner, values)
    return sums, packed.owner.bincount(minlength=packed.answers)


def groups(branches: Iterable[Branch], tokens: int = TOKENS_PER_PACK) -> Iterator[list[Branch]]:
    """Consecutive branches in packs of bounded size."""
    group: list[Branch] = []
    size = 0
    for branch in branches:
        if group and size + branch.length > tokens:
            yield group
            group, size = [], 0
        group.append(branch)
        size += branch.length
    if group:
        yield group


def mean_log_probs(model: Any, branches: Sequence[Branch]) -> list[tuple[float, ...]]:
    """Mean log-probability per token of every answer of every branch; no gradients."""
    import torch

    like = next(model.parameters())
    found: list[tuple[float, ...]] = []
    with torch.no_grad():
        for group in groups(branches):
            packed = pack(group, like)
            sums, counts = per_answer(token_log_probs(model, packed), packed)
            values = iter((sums / counts).tolist())
            found += [tuple(next(values) for _ in branch.answers) for branch in group]
    return found
