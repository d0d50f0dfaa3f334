"""Whether loading a model would run code: the imports of its pickles, read and never executed.

Sources: see `vestige.core.pickle_scan`.
"""

from __future__ import annotations

from typing import Any

from vestige.core.checkpoint import ModelSubject
from vestige.core.errors import VestigeError
from vestige.core.findings import Finding

_SHOWN = 12


class PickleScan:
    """Finds pickles that import functions which run code or reach files, processes or the network.

    score: 1 for a dangerous import, 0.5 for one that weights do not need or a file that could not be read to its end,
    0 otherwise. Flagged at 1, and for files that could not be read to their end: they cannot be vouched for.

    >>> import pickle, tempfile
    >>> with tempfile.NamedTemporaryFile(suffix=".pt") as file:
    ...     _ = file.write(pickle.dumps(eval)), file.flush()
    ...     PickleScan().find(ModelSubject.open(file.name)).summary
    'Loading the model with pickle would run code: it imports builtins.eval.'
    """

    slug = "pickle_scan"

    def find(self, subject: Any) -> Finding:
        """A `Finding` about a `ModelSubject`; "does not apply" for other subjects and unreadable files."""
        if not isinstance(subject, ModelSubject):
            return Finding.not_applicable(self.slug, "code", "it is not a model.")
        try:
            reports = subject.pickles()
            code = [file.name for file in subject.files if file.suffix == ".py"]
        except (VestigeError, OSError) as error:
            return Finding.not_applicable(self.slug, "code", f"the model cannot be read ({error}).")
        dangerous, unknown, problems, damaged, evidence = [], [], [], [], []
        for report in reports.values():
            dangerous += report.dangerous
            unknown += report.unknown
            damaged += [report.damaged] if report.damaged else []
            problems += report.problems
            evidence += [f"{report.places[name]} imports {name}, which can run code" for name in report.dangerous]
        evidence += [f"{text}; the rest was not examined" for text in damaged]
        evidence += [
            f"{report.places[name]} imports {name}, which weights do not need"
            for report in reports.values()
            for name in report.unknown
        ]
        evidence += problems
        evidence += [f"{name} is Python code that runs only if the loader is told to trust it" for name in code]
        pickles = sum(report.pickles for report in reports.values())
        evidence.append(f"{pickles} pickles with {sum(r.opcodes for r in reports.values())} opcodes were read")
        if len(evidence) > _SHOWN:
            evidence = [*evidence[:_SHOWN], f"and {len(evidence) - _SHOWN} more observations"]
        if dangerous:
            flag = (
                f"Loading the model with pickle would run code: it imports {', '.join(dict.fromkeys(dangerous[:3]))}."
            )
        else:
            flag = f"The model's pickle cannot be read to its end, so it cannot be called safe: {''.join(damaged[:1])}."
        clear = "The model holds no pickle: loading it runs no code."
        if unknown:
            clear = f"The model's pickles import no known way to run code, but more than weights need: {unknown[0]}."
        elif pickles:
            clear = "The model's pickles import only what weights need."
        return Finding(
            self.slug,
            "code",
            score=1.0 if dangerous else 0.5 if damaged or unknown else 0.0,
            flagged=bool(dangerous or damaged),
            when_flagged=flag,
            when_clear=clear,
            evidence=tuple(evidence),
            details={
                "dangerous": list(dict.fromkeys(dangerous)),
                "unknown": list(dict.fromkeys(unknown))[:100],
                "problems": problems,
                "damaged": damaged,
                "pickles": pickles,
            },
        )
