"""The table of config fields is complete, for the PEFT that is installed and for older ones."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from scanner.formats.canon.fields import BY_TYPE, departing_fields, rules_of
from scanner.formats.canon.rules import Effect, Only
from scanner.formats.peft_config import parse_config
from scanner.formats.readers.peft_methods import METHODS

FIELDS: dict[str, dict[str, str]] = json.loads(
    Path(__file__).with_name("peft_fields.json").read_text()
)
"""peft_type -> field -> the first version since 0.6 whose dataclass has it, taken from the wheels
of PEFT 0.6.0 to 0.21.0."""


def test_every_recovered_type_has_a_row() -> None:
    assert set(BY_TYPE) == {"LORA", *METHODS}


@pytest.mark.parametrize("peft_type", BY_TYPE)
def test_no_field_of_the_installed_peft_is_missing(peft_type: str) -> None:
    installed = PEFT_TYPE_TO_CONFIG_MAPPING[peft_type]
    names = {field.name for field in dataclasses.fields(installed)}
    assert names <= set(rules_of(peft_type))


@pytest.mark.parametrize("peft_type", BY_TYPE)
def test_no_field_of_older_versions_is_missing(peft_type: str) -> None:
    assert set(FIELDS[peft_type]) <= set(rules_of(peft_type))


@pytest.mark.parametrize("peft_type", BY_TYPE)
def test_the_defaults_of_the_installed_peft_change_nothing(peft_type: str) -> None:
    needed = {"total_step": 10} if peft_type == "ADALORA" else {}
    config = PEFT_TYPE_TO_CONFIG_MAPPING[peft_type](target_modules=["q_proj"], **needed)
    raw = json.loads(json.dumps(config.to_dict(), default=list))
    assert not list(departing_fields(parse_config(raw, "config")))


@pytest.mark.parametrize(
    ("peft_type", "key"),
    [
        (name, key)
        for name in BY_TYPE
        for key, rule in rules_of(name).items()
        if isinstance(rule, Only)
    ],
)
def test_a_value_that_is_not_understood_is_uncovered(peft_type: str, key: str) -> None:
    config = parse_config({"peft_type": peft_type, key: [1]}, "config")
    assert [item.tensor for item in departing_fields(config)] == [f"adapter_config.json: {key}"]
    assert rules_of(peft_type)[key] not in (Effect.NONE, Effect.READ)
