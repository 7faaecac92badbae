"""Every adapter of a hub's listing judged once, resumably, on one machine or a cluster."""
