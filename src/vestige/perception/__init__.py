"""Segmentation, depth, faces and other reading of scenes."""

from vestige.core.catalogue import System

SYSTEMS = (
    System(
        "bcp",
        "Bidirectional Copy-Paste",
        ("learn",),
        title="Bidirectional Copy-Paste for Semi-Supervised Medical Image Segmentation",
        venue="CVPR 2023",
    ),
    System(
        "peekaboo",
        "PEEKABOO",
        ("find",),
        title="PEEKABOO: Hiding parts of an image for unsupervised object localization",
        venue="BMVC 2024",
    ),
    System(
        "depth_moving",
        "Unsupervised monocular depth, focusing on moving objects",
        ("learn", "find"),
        title="Unsupervised Monocular Depth Perception: Focusing on Moving Objects",
        venue="IEEE Sensors Journal 2021 (extends DiPE, IROS 2020)",
    ),
    System(
        "hodinet",
        "High-Order Discrepant Interaction Network",
        ("find",),
        title="HODINet: High-Order Discrepant Interaction Network for RGB-D Salient Object Detection",
        venue="arXiv 2023",
    ),
    System(
        "arm",
        "Asymmetric Reinforcing against Multimodal representation bias",
        ("learn", "measure"),
        title="Asymmetric Reinforcing against Multi-modal Representation Bias",
        venue="AAAI 2025",
    ),
    System(
        "fer_e2n",
        "FER with emotional-to-neutral transformation",
        ("find",),
        title="Knowledge-Enhanced Facial Expression Recognition with Emotional-to-Neutral Transformation",
        venue="IEEE TMM 2025 (arXiv 2024)",
    ),
    System(
        "focus",
        "FOCUS (face reconstruction with outlier segmentation)",
        ("find", "restore"),
        title="Robust Model-based Face Reconstruction through Weakly-Supervised Outlier Segmentation",
        venue="CVPR 2023",
    ),
    System(
        "xmask3d",
        "XMask3D",
        ("find",),
        title="XMask3D: Cross-modal Mask Reasoning for Open Vocabulary 3D Semantic Segmentation",
        venue="NeurIPS 2024",
    ),
)
