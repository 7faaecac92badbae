"""Signature packs: loading, verifying, matching to a base model, scoring with them."""
