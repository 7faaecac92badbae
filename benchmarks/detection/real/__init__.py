"""The detection benchmark on a real base: organisms of known behaviour under packs that ship."""
