from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import pytest

from scanner.system.validation import with_allowed


class Inner(msgspec.Struct):
    mode: Literal["a", "b"] | None = None


class Outer(msgspec.Struct, rename="kebab"):
    many_rules: list[Inner] = []
    by_name: dict[str, Inner] = {}
    number: Annotated[int, msgspec.Meta(ge=1)] = 1


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"many-rules": [{}, {"mode": "c"}]}, "'c' is not one of a, b - at `$.many-rules[1].mode`"),
        ({"by-name": {"x": {"mode": "c"}}}, "'c' is not one of a, b - at `$.by-name[...].mode`"),
        ({"number": 0}, "Expected `int` >= 1 - at `$.number`"),
    ],
)
def test_values_that_would_be_taken_are_named_wherever_they_stand(value: object, said: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(value, Outer)
    assert with_allowed(caught.value, Outer) == said
