"""A hub of the test's own, and nothing of the user's."""

from tests.hub.fixtures import hub_home, serve_hub

__all__ = ["hub_home", "serve_hub"]
