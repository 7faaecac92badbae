"""The organism lab: small language models with a known, measured kind of emergent misalignment."""
