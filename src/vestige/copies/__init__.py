"""Copies, replicas and their retrieval."""

from vestige.core.catalogue import Command, System

SYSTEMS = (
    System(
        "replication_audit",
        "Replication in Visual Diffusion Models (unveil · understand · mitigate)",
        ("find", "measure", "erase"),
        title="Replication in Visual Diffusion Models: A Survey and Outlook",
        venue="arXiv 2024 (2408.00001)",
    ),
    System(
        "signature_verification",
        "stamp-cleaned writer-independent signature verification",
        ("restore", "find"),
        title="Offline Signature Verification on Real-World Documents",
        venue="CVPR Workshops (Biometrics) 2020 (2004.12104)",
    ),
    System(
        "asl_ndec",
        "Asymmetrical-Similarity Learning and the NDEC benchmark",
        ("learn", "find", "measure"),
        title="A Benchmark and Asymmetrical-Similarity Learning for Practical Image Copy Detection",
        venue="AAAI 2023",
    ),
    System(
        "anypattern",
        "AnyPattern patterns + ImageStacker in-context copy detection",
        ("learn", "find"),
        title="AnyPattern: Towards In-context Image Copy Detection",
        venue="IJCV 2025 (2404.13788)",
    ),
    System(
        "semsim",
        "SemSim semantic privacy-leakage score for reconstructed images",
        ("measure",),
        title="Privacy Assessment on Reconstructed Images: Are Existing Evaluation Metrics Faithful to Human Perception?",
        venue="NeurIPS 2023 (2309.13038)",
    ),
    System(
        "copyscope",
        "FID-Shapley model-level copyright attribution",
        ("measure",),
        title="CopyScope: Model-level Copyright Infringement Quantification in the Diffusion Workflow",
        venue="arXiv 2023 (2311.12847)",
    ),
    System(
        "semisupervised_fgsbir",
        "More Photos are All You Need",
        ("learn", "generate", "find"),
        title="More Photos are All You Need: Semi-Supervised Learning for Fine-Grained Sketch Based Image Retrieval",
        venue="CVPR 2021",
    ),
    System(
        "rsknet_mtsp",
        "RSKNet-MTSP speaker verification",
        ("learn", "find"),
        title="RSKNet-MTSP: Effective and Portable Deep Architecture for Speaker Verification",
        venue="Neurocomputing 2022 (2108.13249)",
    ),
    System(
        "duplicates",
        "exact copies, same pixels and near copies in a folder",
        ("find",),
        title="Implementation and Benchmarking of Perceptual Image Hash Functions",
        venue="Zauner 2010",
        target="vestige.copies.duplicates:Duplicates",
        kind="baseline",
        commands=(
            Command(
                "vestige find faces",
                "a folder of pictures",
                "groups of exact and near copies, after the pictures",
                quick="--jobs 1",
            ),
        ),
    ),
)
