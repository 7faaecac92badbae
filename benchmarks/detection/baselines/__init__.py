"""What others do, on the same adapters: published statistics and classifiers.

Each module is one family of methods, written from the papers' descriptions. Supervised
methods train on the misaligned references against the benign calibration adapters: the
same data a calibrated pack is made of, never a test adapter. `notes` of each method says
what was simplified.
"""
