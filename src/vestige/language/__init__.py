"""Alignment of small language models."""

from vestige.core.catalogue import System

SYSTEMS = (
    System(
        "unintentional_unalignment",
        "Likelihood displacement and the CHES score",
        ("measure", "find", "erase"),
        title="Unintentional Unalignment: Likelihood Displacement in Direct Preference Optimization",
        venue="ICLR 2025",
    ),
    System(
        "emergent_misalignment",
        "Narrow fine-tuning, broad effect",
        ("measure", "attack", "find"),
        title="Emergent Misalignment: Narrow finetuning can produce broadly misaligned LLMs",
        venue="ICML 2025",
    ),
    System(
        "alkali_grace",
        "ALKALI benchmark, GRACE alignment, AVQI metric",
        ("measure", "restore", "attack"),
        title="AdversariaL attacK sAfety aLIgnment (ALKALI): Safeguarding LLMs through GRACE: Geometric Representation-Aware Contrastive Enhancement — Introducing Adversarial Vulnerability Quality Index (AVQI)",
        venue="arXiv 2025",
    ),
)
