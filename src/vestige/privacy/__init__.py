"""Protecting people and data, and measuring leaks."""

from vestige.core.catalogue import Command, System

SYSTEMS = (
    System(
        "clip2protect",
        "CLIP2Protect",
        ("erase", "attack"),
        title="CLIP2Protect: Protecting Facial Privacy using Text-Guided Makeup via Adversarial Latent Search",
        venue="CVPR 2023",
    ),
    System(
        "diffusionguard",
        "DiffusionGuard",
        ("erase", "measure", "attack"),
        title="DiffusionGuard: A Robust Defense Against Malicious Diffusion-based Image Editing",
        venue="ICLR 2025",
    ),
    System(
        "camouflage",
        "CAMOUFLaGE-Base / -Light",
        ("erase", "generate"),
        title="Latent Diffusion Models for Attribute-Preserving Image Anonymization",
        venue="2024 (arXiv 2403.14790; ECCV-style manuscript)",
    ),
    System(
        "ifadit",
        "iFADIT",
        ("erase", "restore", "mark"),
        title="iFADIT: Invertible Face Anonymization via Disentangled Identity Transform",
        venue="2025 (Pattern Recognition; arXiv 2501.04390)",
    ),
    System(
        "uad",
        "Unsegment Anything by Simulating Deformation (UAD)",
        ("erase", "attack"),
        title="Unsegment Anything by Simulating Deformation",
        venue="CVPR 2024",
    ),
    System(
        "uc",
        "Unlearnable Clusters",
        ("erase", "learn", "attack"),
        title="Unlearnable Clusters: Towards Label-agnostic Unlearnable Examples",
        venue="CVPR 2023 (arXiv 2301.01217)",
    ),
    System(
        "cuda",
        "CUDA (Convolution-based Unlearnable DAtasets)",
        ("erase", "learn", "mark"),
        title="CUDA: Convolution-based Unlearnable Datasets",
        venue="CVPR 2023 (arXiv 2303.04278)",
    ),
    System(
        "cafe",
        "CAFE (attack and countermeasure)",
        ("attack", "measure", "restore"),
        title="CAFE: Catastrophic Data Leakage in Vertical Federated Learning",
        venue="NeurIPS 2021 (arXiv 2110.15122)",
    ),
    System(
        "vafl",
        "VAFL",
        ("learn", "erase", "measure"),
        title="VAFL: a Method of Vertical Asynchronous Federated Learning",
        venue="arXiv 2007.06081 (2020)",
    ),
    System(
        "hidenseek",
        "HideNseek",
        ("learn",),
        title="HideNseek: Federated Lottery Ticket via Server-side Pruning and Sign Supermask",
        venue="2022 (arXiv 2206.04385)",
    ),
    System(
        "drag",
        "DRAG",
        ("find",),
        title="DRAG: Dynamic Region-Aware GCN for Privacy-Leaking Image Detection",
        venue="AAAI 2022 (arXiv 2203.09121)",
    ),
    System(
        "privpas",
        "PrivPAS",
        ("find", "measure"),
        title="PrivPAS: A real time Privacy-Preserving AI System and applied ethics",
        venue="arXiv 2202.02524 (2022)",
    ),
    System(
        "dataset_inference",
        "Dataset Inference",
        ("find", "measure"),
        title="Dataset Inference: Ownership Resolution in Machine Learning",
        venue="ICLR 2021",
    ),
    System(
        "face_obscure",
        "faces found by Haar cascades and blurred, pixelated or filled",
        ("erase",),
        title="Rapid Object Detection using a Boosted Cascade of Simple Features",
        venue="CVPR 2001",
        target="vestige.privacy.face_obscure:FaceObscure",
        kind="baseline",
        commands=(
            Command(
                "vestige erase photo.png --what faces --mode pixelate -o out/faceless.png",
                "a photograph",
                "the photograph with every face that was found pixelated",
            ),
        ),
    ),
)
