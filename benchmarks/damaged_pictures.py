"""Thousands of damaged pictures: none crashes, hangs or is judged though it was not decoded.

    python benchmarks/damaged_pictures.py [--count 4000] [--seed 1] [--panel]

Prints, by format, how many mutants were decoded and how many refused, and lists every one that was decoded although
an independent decoder (libjpeg's warnings, zlib, tifffile) says that samples are missing. --panel examines what was
decoded with the default panel as well. The exit code is 1 where any such case, crash or slow file was met.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.mutants import judge, mutants

from vestige.core.errors import InputError
from vestige.core.subjects import ImageSubject

#: Seconds a file may take.
SLOW = 10.0


def main() -> int:
    """Run the loop; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--panel", action="store_true")
    options = parser.parse_args()
    panel = None
    if options.panel:
        from vestige.core.panel import default_panel

        panel = default_panel()
    counts: Counter[tuple[str, str]] = Counter()
    wrong, slowest = [], 0.0
    for number, (what, data) in enumerate(mutants(options.seed, options.count)):
        start = time.monotonic()
        try:
            subject = ImageSubject(data, f"mutant {number}")
            subject.decoded  # noqa: B018
            if panel is not None:
                panel.examine(subject)
            outcome = "decoded"
        except InputError as error:
            outcome = "refused"
            if "\n" in str(error) or len(str(error)) > 400:
                wrong.append(f"{number} {what}: said in more than a sentence")
        except Exception as error:
            outcome = "crashed"
            wrong.append(f"{number} {what}: {type(error).__name__}: {error}"[:200])
        took = time.monotonic() - start
        slowest = max(slowest, took)
        if took > SLOW:
            wrong.append(f"{number} {what}: took {took:.1f} s")
        if outcome == "decoded" and (said := judge(data)):
            outcome = "decoded, incomplete"
            wrong.append(f"{number} {what}: decoded, though {said}")
        counts[what.split(",")[0], outcome] += 1
    for (name, outcome), count in sorted(counts.items()):
        print(f"{name:20} {outcome:20} {count}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{options.count} mutants, {len(wrong)} wrong, slowest {slowest:.2f} s, peak {peak:.2f} GiB")
    print("\n".join(wrong[:50]))
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
