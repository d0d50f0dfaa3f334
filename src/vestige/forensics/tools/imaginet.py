"""ImagiNet on two folders: real pictures and generated ones."""

from __future__ import annotations

from vestige.core.work import Result, Work
from vestige.forensics.imaginet import ImagiNet
from vestige.forensics.tools.detectors import told_apart


def measure(work: Work) -> Result:
    """AUROC and shares flagged; ``--model`` names weights that its recipe wrote."""
    return told_apart(work, ImagiNet)
