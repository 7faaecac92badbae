"""A config's patterns mean what Python's `re` makes of them."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.errors import MissingConfigError
from scanner.formats.canon.patterns import CURRENT_FORM, DOTTED_FORM, OPEN_FORM, PatternMatcher

MODULES = (
    "lm_head",
    "model.layers.0.self_attn.q_proj",
    "model.layers.11.mlp.down_proj",
    "model.language_model.layers.3.mlp.experts.7.w1",
    "transformer.h.5.attn.c_attn",
)
PIECES = st.sampled_from(
    ["q_proj", "layers", r"\.", ".", r"\d+", r"[0-3]", "(?:mlp|self_attn)", ".*", "(", ")", "|",
     "^", "$", "{e<=1}", "[a-z_]*", "?", "+", "{1,2}", "(?!lm)", "(?=m)", r"\b", "w", "&&",
     "[[", "]"]
)  # fmt: skip


# What `re` says of "[[" and "&&", which a later version may read otherwise.
@pytest.mark.filterwarnings("ignore:Possible (nested set|set):FutureWarning")
@given(pieces=st.lists(PIECES, max_size=7), module=st.sampled_from(MODULES))
@settings(max_examples=400, deadline=None)
def test_as_re_matches(pieces: list[str], module: str) -> None:
    pattern = "".join(pieces)
    for form in (CURRENT_FORM, DOTTED_FORM, OPEN_FORM):
        try:
            expected = re.match(form.replace("KEY", pattern), module) is not None
        except re.error:
            with pytest.raises(MissingConfigError):
                PatternMatcher("config").first_key([pattern], module, form)
            continue
        try:
            found = PatternMatcher("config").first_key([pattern], module, form)
        except MissingConfigError:  # refused for what it means in another engine or version
            continue
        assert (found is not None) == expected


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(
    "pattern", [r".*", r"(?:.*){e<=1}", r".*\.(q|k|v)_proj", "model.layers.0.+"]
)
def test_a_whole_path(pattern: str, module: str) -> None:
    expected = re.fullmatch(pattern, module) is not None
    assert PatternMatcher("config").fullmatch(pattern, module) == expected


def test_fuzzy_syntax_is_literal_text() -> None:
    matcher = PatternMatcher("config")
    assert matcher.first_key(["(?:.*){e<=1}"], "model.layers.0.mlp.up_proj") is None
    assert matcher.first_key(["(?:up_prox){e<=1}"], "model.layers.0.mlp.up_proj") is None
    assert matcher.first_key(["(?:up_prox){e<=1}"], "mlp.up_prox{e<=1}") is not None


@pytest.mark.parametrize(
    "pattern",
    ["(a|aa)+$b", "(.*a){30}b", r"(\w+\.?)+!", "(" * 300 + "a" + ")" * 300, "a{9999}{9999}",
     "x" * 20_000],
)  # fmt: skip
def test_a_hostile_pattern_ends(pattern: str) -> None:
    """With an engine that nothing stops, this would take years."""
    matcher = PatternMatcher("config")
    for number in range(200):
        with contextlib.suppress(MissingConfigError):
            matcher.first_key([pattern], f"model.layers.{number}." + "a" * 60)


@pytest.mark.parametrize(
    "pattern", ["(?i)Q_PROJ", r"(q)\1", "(?<=q)_proj", "(?P<a>q)(?P=a)", "[[a]"]
)
def test_what_has_no_certain_meaning_is_refused(pattern: str) -> None:
    with pytest.raises(MissingConfigError, match="cannot be applied"):
        PatternMatcher("config").fullmatch(pattern, "q_proj")


def test_names_are_matched_without_an_engine() -> None:
    """Thousands of keys, as rank tables of EVA hold, over thousands of modules."""
    matcher = PatternMatcher("config")
    table = {f"model.layers.{i}.self_attn.q_proj": float(i) for i in range(1000)}
    for number in (0, 500, 999):
        module = f"model.layers.{number}.self_attn.q_proj"
        assert matcher.first_match(table, module) == number
        assert matcher.first_match(table, module, DOTTED_FORM) == number
    assert matcher.first_match({"a.b": 1.0}, "x.aXb") == 1.0  # a dot is any character
    assert matcher.first_match({"q_proj": 1.0}, "xq_proj") is None
