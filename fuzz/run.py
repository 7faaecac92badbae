"""Coverage-guided fuzzing of one target, with libFuzzer through Atheris.

    python -m fuzz.run TARGET [--seconds N] [--corpus DIRECTORY]

The corpus grows in DIRECTORY and is taken up again by the next run. Exit status 0 means
nothing was found. Needs `pip install atheris` (Linux and macOS).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Runs libFuzzer; it ends the process itself."""
    try:
        import atheris
    except ImportError:
        sys.exit("atheris is not installed: pip install atheris")
    with atheris.instrument_imports(include=["scanner.formats"]):
        from fuzz.targets import TARGETS, run_one
    from fuzz.seeds import SEEDS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=list(TARGETS))
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--corpus", type=Path, default=None)
    options = parser.parse_args()
    corpus = options.corpus or Path(tempfile.mkdtemp(prefix=f"corpus-{options.target}-"))
    corpus.mkdir(parents=True, exist_ok=True)
    arguments = [
        sys.argv[0],
        str(corpus),
        str(SEEDS / options.target),
        f"-max_total_time={options.seconds}",
        "-max_len=4096",
        "-timeout=300",
        "-rss_limit_mb=1024",
        "-print_final_stats=1",
        f"-artifact_prefix={corpus}/finding-",
    ]
    atheris.Setup(arguments, lambda data: run_one(options.target, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
