"""vestige's scan of models beside picklescan, modelscan and fickling on a zoo of ordinary and dangerous files.

    python benchmarks/scanner_zoo.py [--peers PYTHON] [--out results/benchmarks/scanner_zoo.json] [--keep FOLDER]

--peers is the Python that has the peers installed (with h5py, which modelscan needs for HDF5); those it lacks are left
out. A peer "calls dangerous" what it reports an issue in, whatever its severity; fickling, what it does not hold to be
likely safe. Files are made afresh and never loaded; what a dangerous one would do is to touch a marker file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import zoo_dangerous
import zoo_ordinary
from vestige.backdoor.pickle_scan import PickleScan
from vestige.core.errors import VestigeError
from vestige.core.files import write_json
from vestige.core.models.checkpoint import ModelSubject
from vestige.core.runtime import hardware, versions

PEERS = ("picklescan", "modelscan", "fickling")
_COLUMNS = ("scanner", "found", "called_harmless", "undecided", "false_alarms", "ordinary_harmless")
CHILD = Path(__file__).with_name("scanner_peers.py")


def ours(paths: list[Path]) -> tuple[dict[str, str], float]:
    """{name: answer} of each file, and the seconds all took."""
    scanner, answers, start = PickleScan(), {}, time.perf_counter()
    for path in paths:
        try:
            answers[path.name] = str(scanner.find(ModelSubject.open(path)).details.get("answer", "refused"))
        except VestigeError:
            answers[path.name] = "refused"
    return answers, time.perf_counter() - start


def peer(python: str, name: str, folder: Path) -> dict[str, Any] | None:
    """What a peer says of each file in a folder; None where it is not installed."""
    done = subprocess.run([python, str(CHILD), name, str(folder)], capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        print(f"left out: {name} ({(done.stderr.strip().splitlines() or ['no answer'])[-1][:100]})")
        return None
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def measure(folder: Path, python: str) -> dict[str, Any]:
    """Make the zoo in a folder and have every scanner look at it."""
    kinds: dict[str, list[str]] = {}
    for kind, files in (("dangerous", zoo_dangerous.dangerous()), ("ordinary", zoo_ordinary.ordinary())):
        (folder / kind).mkdir()
        for name, write in files.items():
            path = folder / kind / name
            if "." not in name:
                path.mkdir()
            write(path)
        kinds[kind] = sorted(files)
    told: dict[str, dict[str, dict[str, str]]] = {"vestige": {}}
    seconds: dict[str, float] = {"vestige": 0.0}
    found: dict[str, str] = {}
    for kind, names in kinds.items():
        told["vestige"][kind], spent = ours([folder / kind / name for name in names])
        seconds["vestige"] += spent
        for name in PEERS:
            answer = peer(python, name, folder / kind)
            if answer is not None:
                told.setdefault(name, {})[kind] = answer["answers"]
                seconds[name] = seconds.get(name, 0.0) + answer["seconds"]
                found[name] = answer["version"]
    return {
        "files": {kind: len(names) for kind, names in kinds.items()},
        "rows": [_row(name, answers, seconds[name]) for name, answers in told.items()],
        "missed": _missed(told),
        "peers": found,
        "answers": told["vestige"],
    }


def _row(name: str, told: dict[str, dict[str, str]], seconds: float) -> dict[str, Any]:
    dangerous, ordinary = list(told["dangerous"].values()), list(told["ordinary"].values())
    return {
        "scanner": name,
        "found": dangerous.count("dangerous"),
        "called_harmless": dangerous.count("harmless"),
        "undecided": len(dangerous) - dangerous.count("dangerous") - dangerous.count("harmless"),
        "false_alarms": ordinary.count("dangerous"),
        "ordinary_harmless": ordinary.count("harmless"),
        "seconds": round(seconds, 2),
    }


def _missed(told: dict[str, dict[str, dict[str, str]]]) -> list[str]:
    """Dangerous files that a peer names and vestige does not."""
    mine = told["vestige"]["dangerous"]
    return sorted(
        f"{name} ({scanner})"
        for scanner, answers in told.items()
        for name, answer in answers["dangerous"].items()
        if answer == "dangerous" and mine[name] != "dangerous"
    )


def table(result: dict[str, Any]) -> str:
    """The rows as Markdown."""
    total, plain = result["files"]["dangerous"], result["files"]["ordinary"]
    lines = [
        f"| scanner | dangerous found, of {total} | called harmless | undecided "
        f"| ordinary called dangerous, of {plain} | called harmless |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    cells = [[str(row[key]) for key in _COLUMNS] for row in result["rows"]]
    lines += ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default=sys.executable, help="Python with the peers installed")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    parser.add_argument("--keep", type=Path, help="make the files in this new folder and leave them there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        result = measure(folder, options.peers)
    print(table(result))
    print("named by a peer and not by vestige:", ", ".join(result["missed"]) or "none")
    for kind, answers in result["answers"].items():
        others = {name: answer for name, answer in answers.items() if (answer == "dangerous") != (kind == "dangerous")}
        print(f"vestige on {kind}, not as expected:", others or "none")
        print(" ", {name: a for name, a in answers.items() if kind == "ordinary" and a != "harmless"})
    if options.out is not None:
        own = versions("vestige", "torch", "scikit-learn", "joblib", "numpy")
        write_json(options.out, {**result, "versions": own, "hardware": hardware()})


if __name__ == "__main__":
    main()
