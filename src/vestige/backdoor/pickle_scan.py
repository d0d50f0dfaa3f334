"""Whether loading a model would run code: read and never executed, and called harmless only when all of it is known.

Sources: see `vestige.core.models.pickle_scan`.
"""

from __future__ import annotations

from typing import Any

from vestige.core.bounded import printable
from vestige.core.errors import VestigeError
from vestige.core.findings import Finding
from vestige.core.models.checkpoint import ModelSubject
from vestige.core.models.pickle_scan import UNVOUCHED

_SHOWN = 12


class PickleScan:
    """Answers in ``details["answer"]``: "harmless", "dangerous" or "cannot be vouched for".

    Harmless: all of the file is known to run nothing. Dangerous: it imports a function, named, that runs code or
    reaches files, processes or the network, or asks for that in the way of its own format. Everything else cannot be
    vouched for: imports that are not on the allow-list, files that could not be read to their end, formats that are
    not examined, code beside the weights.

    score: 1 for dangerous, 0.5 for what cannot be vouched for, 0 for harmless; flagged above 0.

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
        except (VestigeError, OSError) as error:
            return Finding.not_applicable(self.slug, "code", f"the model cannot be read ({printable(str(error))}).")
        dangerous, unknown, hazards, problems, damaged, evidence = [], [], [], [], [], []
        for report in reports.values():
            dangerous += report.dangerous
            unknown += report.unknown
            hazards += report.hazards
            damaged += [report.damaged] if report.damaged else []
            problems += report.problems
            evidence += [f"{report.places[name]} imports {name}, which can run code" for name in report.dangerous]
        evidence += hazards
        evidence += [f"{text}; the rest was not examined" for text in damaged]
        evidence += [
            f"{report.places[name]} imports {name}, which is not known to be harmless"
            for report in reports.values()
            for name in report.unknown
        ]
        evidence += problems
        pickles = sum(report.pickles for report in reports.values())
        if pickles:
            opcodes = sum(r.opcodes for r in reports.values())
            evidence.append(f"{pickles} {'pickle' if pickles == 1 else 'pickles'} with {opcodes} opcodes read")
        if len(evidence) > _SHOWN:
            evidence = [*evidence[:_SHOWN], f"and {len(evidence) - _SHOWN} more observations"]
        answer = "dangerous" if dangerous or hazards else UNVOUCHED if unknown or damaged or problems else "harmless"
        if dangerous:
            named = ", ".join(dict.fromkeys(dangerous[:3]))
            flag = f"Loading the model with pickle would run code: it imports {named}."
        elif hazards:
            flag = f"Loading the model is dangerous: {hazards[0]}."
        elif damaged:
            flag = f"The model cannot be read to its end, so it cannot be called safe: {damaged[0]}."
        elif unknown:
            flag = (
                f"The model cannot be vouched for: its pickles import {unknown[0]}, which is not known to be harmless."
            )
        else:
            flag = f"The model cannot be vouched for: {''.join(problems[:1])}."
        clear = "The model holds no pickle: loading it runs no code."
        if examined := sorted({format for report in reports.values() for format in report.examined}):
            formats = " and ".join(examined)
            clear = f"The model holds no pickle, and nothing in its {formats} runs code or leaves its folder."
        if pickles:
            clear = "The model's pickles import only what is known to be harmless."
        return Finding(
            self.slug,
            "code",
            score={"dangerous": 1.0, UNVOUCHED: 0.5, "harmless": 0.0}[answer],
            flagged=answer != "harmless",
            when_flagged=flag,
            when_clear=clear,
            evidence=tuple(evidence),
            details={
                "answer": answer,
                "dangerous": list(dict.fromkeys(dangerous)),
                "hazards": hazards,
                "unknown": list(dict.fromkeys(unknown))[:100],
                "problems": problems,
                "damaged": damaged,
                "pickles": pickles,
            },
        )
