"""What is delivered: new subjects, the same again, and what nobody may deliver."""

from __future__ import annotations

import random
import time
import uuid
from dataclasses import dataclass
from typing import Any, Literal

from tests.serve.process import HUB_SECRET, MLFLOW_SECRET

Kind = Literal["new", "same id", "new id", "bad signature", "stale"]


@dataclass(frozen=True)
class Planned:
    """One delivery."""

    kind: Kind
    platform: Literal["mlflow", "hub"]
    event: dict[str, Any]
    delivery_id: str
    secret: str
    age: float
    """Seconds by which its timestamp lies in the past."""

    @property
    def authentic(self) -> bool:
        """Whether it has to be accepted."""
        return self.kind not in ("bad signature", "stale")


def plan(
    subjects: dict[str, list[dict[str, Any]]], count: int, bad: float, seed: int
) -> list[Planned]:
    """Deliveries in order: every subject at least once, repetitions, and a share of bad ones.

    Args:
        subjects: Platform -> the event of each of its subjects.
        count: Of all deliveries.
        bad: Share of them that nobody may deliver.
        seed: Of the order.
    """
    generator = random.Random(seed)
    first = [
        _authentic("new", platform, event)
        for platform, events in subjects.items()
        for event in events
    ]
    refused = [_bad(generator, subjects) for _ in range(round(count * bad))]
    again = [_again(generator, first) for _ in range(count - len(first) - len(refused))]
    planned = first + refused + again
    generator.shuffle(planned)
    return planned


def _authentic(kind: Kind, platform: Any, event: dict[str, Any]) -> Planned:
    secret = MLFLOW_SECRET if platform == "mlflow" else HUB_SECRET
    return Planned(kind, platform, event, str(uuid.uuid4()), secret, 0.0)


def _again(generator: random.Random, first: list[Planned]) -> Planned:
    """One of the first again: as MLflow repeats it, or as a second webhook would."""
    chosen = generator.choice(first)
    if generator.random() < 0.5:
        return Planned(
            "same id", chosen.platform, chosen.event, chosen.delivery_id, chosen.secret, 0.0
        )
    return _authentic("new id", chosen.platform, chosen.event)


def _bad(generator: random.Random, subjects: dict[str, list[dict[str, Any]]]) -> Planned:
    """A delivery about something that may never be judged."""
    platform: Any = generator.choice(sorted(subjects))
    event = _renamed(generator.choice(subjects[platform]), generator.randrange(10**9))
    stale = platform == "mlflow" and generator.random() < 0.5
    secret = MLFLOW_SECRET if stale else "a-secret-that-is-not-the-servers"
    kind: Kind = "stale" if stale else "bad signature"
    return Planned(kind, platform, event, str(uuid.uuid4()), secret, 3600.0 if stale else 0.0)


def _renamed(event: dict[str, Any], number: int) -> dict[str, Any]:
    part = "data" if "data" in event else "repo"
    return {**event, part: {**event[part], "name": f"forged/never-{number}"}}


def stamp(planned: Planned) -> float:
    """The time a delivery says it was sent."""
    return time.time() - planned.age
