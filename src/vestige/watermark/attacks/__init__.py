"""Attacks on marks: one registry, one call, suites.

>>> import numpy as np
>>> attack(np.zeros((1, 3, 32, 48), np.float32), "jpeg", 50).shape
(1, 3, 32, 48)
"""

from vestige.watermark.attacks import regeneration, several, signal  # noqa: F401 - they enter their attacks
from vestige.watermark.attacks.registry import ATTACKS, NEEDS, Context, ImageAttack, attack, missing
from vestige.watermark.attacks.suites import SUITES, Trial, trials

__all__ = ["ATTACKS", "NEEDS", "SUITES", "Context", "ImageAttack", "Trial", "attack", "missing", "trials"]
