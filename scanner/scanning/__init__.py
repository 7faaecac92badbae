"""What a run of the scanner does around one verdict: targets, configuration, cache, baseline."""
