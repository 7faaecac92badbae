"""Differential tests: mutated adapters, read by the scanner and loaded by the real libraries.

The property: an adapter that the scanner reads with nothing uncovered changes exactly the modules
that a loader changes, by the matrices that the loader adds, for every loader that loads the files
without an error. One positive factor common to all modules, not above 1, may stand between
them: verdicts do not depend on it, and SGLang's scale of an rsLoRA adapter is of that kind.

``python -m tests.differential --minutes 10`` searches for adapters that break it; the short search
of `test_differential` runs with the other tests.
"""
