"""Removing concepts from generative models."""

from vestige.core.catalogue import System

SYSTEMS = (
    System(
        "unlearncanvas",
        "benchmark of style and object unlearning",
        ("measure",),
        title="UnlearnCanvas: A Stylized Image Dataset to Benchmark Machine Unlearning for Diffusion Models",
        venue="NeurIPS 2024 D&B",
    ),
    System(
        "doco",
        "concept domain correction + concept-preserving gradient",
        ("erase",),
        title="Unlearning Concepts in Diffusion Model via Concept Domain Correction and Concept Preserving Gradient",
        venue="AAAI 2025",
    ),
    System(
        "unlearndiffatk",
        "adversarial prompts against unlearned diffusion models",
        ("attack", "measure"),
        title="To Generate or Not? Safety-Driven Unlearned Diffusion Models Are Still Easy To Generate Unsafe Images ... For Now",
        venue="ECCV 2024",
    ),
    System(
        "advunlearn",
        "adversarially trained erasure in the text encoder",
        ("erase",),
        title="Defensive Unlearning with Adversarial Training for Robust Concept Erasure in Diffusion Models",
        venue="NeurIPS 2024",
    ),
    System(
        "trce",
        "two-stage reliable concept erasure",
        ("erase",),
        title="TRCE: Towards Reliable Malicious Concept Erasure in Text-to-Image Diffusion Models",
        venue="arXiv 2503.07389 (2025)",
    ),
    System(
        "sce",
        "All but One: surgical concept erasing",
        ("erase",),
        title="All but One: Surgical Concept Erasing with Model Preservation in Text-to-Image Diffusion Models",
        venue="AAAI 2024",
    ),
    System(
        "freezeasguard",
        "selective tensor freezing against illegal adaptation",
        ("erase", "measure"),
        title="FreezeAsGuard: Mitigating Illegal Adaptation of Diffusion Models via Selective Tensor Freezing",
        venue="2024 (arXiv 2405.17472)",
    ),
    System(
        "geom_erasing",
        "implicit concept removal by geometry, and the ICD data",
        ("erase", "generate", "measure"),
        title="Implicit Concept Removal of Diffusion Models (Geom-Erasing; ICD)",
        venue="ECCV 2024",
    ),
    System(
        "text_to_unlearn",
        "unlearning in GANs via text",
        ("erase", "measure"),
        title="Prompting Forgetting: Unlearning in GANs via Textual Guidance",
        venue="2025",
    ),
    System(
        "adapt_then_unlearn",
        "GAN unlearning by parameter-space repulsion",
        ("erase",),
        title="Adapt then Unlearn: Exploring Parameter Space Semantics for Unlearning in Generative Adversarial Networks",
        venue="TMLR 2025",
    ),
)
