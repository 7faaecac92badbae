"""Scores of benign adapters -> p-values, thresholds and false discovery rates."""
