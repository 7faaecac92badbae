"""What a file would hold had its writing library made it, and what differs from that.

An adapter is canonical if its tensor names, its shapes and every field of its config are exactly
what the library that writes the format makes of them and reads back. Everything else comes out
as an `Uncovered` whose reason names the loader that would load another update, so that a verdict
of ``clear`` is about the update that runs.

Modules: `fields` and `fields_other` are the table of every config field, `patterns` applies a
config's regular expressions, `targets` decides which modules get layers, `names` how tensors are
spelled, `lora`, `methods` and `mlx` put them together per format.
"""
