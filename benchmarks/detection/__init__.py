"""The detection benchmark: which scores find misaligned adapters, ours and those of others."""
