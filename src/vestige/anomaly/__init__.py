"""Defects and outliers."""

from vestige.core.catalogue import System

SYSTEMS = (
    System(
        "ear",
        "EAR: Excision And Recovery by deterministic DINO masks and mosaic hints",
        ("find",),
        title="Excision And Recovery: Visual Defect Obfuscation Based Self-Supervised Anomaly Detection Strategy",
        venue="Scientific Reports 2024 (arXiv 2310.04010)",
    ),
    System(
        "fader",
        "FADeR: feature attenuation of defective representation",
        ("find",),
        title="Feature Attenuation of Defective Representation Can Resolve Incomplete Masking on Anomaly Detection",
        venue="CVPR-W VAND 2025 (arXiv 2407.04597)",
    ),
    System(
        "memmc_mae",
        "MemMC-MAE: memory-augmented multi-level cross-attentional masked autoencoder",
        ("find",),
        title="Unsupervised Anomaly Detection in Medical Images with a Memory-augmented Multi-level Cross-attentional Masked Autoencoder",
        venue="MLMI@MICCAI 2023 (2203.11725)",
    ),
    System(
        "comad",
        "ComAD: component-aware logical anomaly detection",
        ("find",),
        title="Component-aware anomaly detection framework for adjustable and logical industrial visual inspection",
        venue="Advanced Engineering Informatics 58, 2023 (arXiv 2305.08509)",
    ),
    System(
        "dlsr",
        "Diffusion-based layer-wise semantic reconstruction for unsupervised OOD",
        ("find",),
        title="Diffusion-based Multi-layer (Layer-wise) Semantic Reconstruction for Unsupervised Out-of-Distribution Detection",
        venue="NeurIPS 2024 (2411.10701)",
    ),
    System(
        "fraud_audit",
        "Challenges in credit-card fraud detection (imbalance, label noise, PCA release)",
        ("measure", "find"),
        title="Challenges and Complexities in Machine Learning based Credit Card Fraud Detection",
        venue="arXiv 2022 (2208.10943)",
    ),
)
