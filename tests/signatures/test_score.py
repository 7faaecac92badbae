"""The signed write of an adapter: added up over layers, the strongest within one."""

from __future__ import annotations

import numpy as np
import pytest

from scanner import geometry
from scanner.formats.model import Site
from scanner.geometry import Direction, LowRank, SiteProjection
from scanner.signatures.numbers import ScoreScale
from scanner.signatures.score import adapter_score, changed_layers, signed_write_score


def projection(seed: int, scale: float = 1.0) -> SiteProjection:
    generator = np.random.default_rng(seed)
    u = np.linalg.qr(generator.standard_normal((12, 2)))[0]
    v = np.linalg.qr(generator.standard_normal((10, 2)))[0]
    update = LowRank(generator.standard_normal((12, 3)), generator.standard_normal((3, 10)), scale)
    return geometry.project(update, Direction(u, np.array([2.0, 1.0]), v))


def test_sites_of_several_layers_are_added_up() -> None:
    sites = {Site(layer, "mlp.down_proj"): projection(layer) for layer in range(3)}
    assert changed_layers(sites) == 3
    assert signed_write_score(sites) == geometry.site_score(sites.values())


def test_within_one_layer_the_strongest_site_counts() -> None:
    sites = {Site(4, f"self_attn.{name}_proj"): projection(i) for i, name in enumerate("qkvo")}
    assert changed_layers(sites) == 1
    assert signed_write_score(sites) == max(geometry.signed_write(item) for item in sites.values())


def test_layers_that_are_not_changed_do_not_count() -> None:
    sites = {Site(1, "mlp.down_proj"): projection(1), Site(2, "mlp.down_proj"): projection(2, 0.0)}
    assert changed_layers(sites) == 1
    assert signed_write_score(sites) == geometry.signed_write(sites[Site(1, "mlp.down_proj")])


def test_an_adapter_that_changes_nothing_has_no_score() -> None:
    assert np.isnan(signed_write_score({Site(0, "mlp.down_proj"): projection(0, 0.0)}))
    assert signed_write_score({Site(0, "a"): projection(3)}) == pytest.approx(
        geometry.site_score([projection(3)])
    )


def test_each_shape_has_its_own_scale() -> None:
    several = {Site(layer, "mlp.down_proj"): projection(layer) for layer in range(3)}
    one = {Site(4, "mlp.down_proj"): projection(3)}
    generous = ScoreScale(signed_write=(0.0, 1.0), dose=(-1e6, 1.0), both=1.0, norm=1e9)
    assert adapter_score(one, {"several layers": generous}) == signed_write_score(one)
    assert adapter_score(several, {"several layers": generous}) > 1e5
