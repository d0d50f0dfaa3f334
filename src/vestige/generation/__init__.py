"""Making and editing pictures and sequences."""

from vestige.core.catalogue import System

SYSTEMS = (
    System(
        "umd",
        "Unified Masked Diffusion (UMD)",
        ("learn", "generate"),
        title="Unified Auto-Encoding with Masked Diffusion",
        venue="arXiv 2024 (2406.17688)",
    ),
    System(
        "diti",
        "Diffusion time-steps as an inductive bias for representation (DiTi)",
        ("learn", "generate", "measure"),
        title="Exploring Diffusion Time-steps for Unsupervised Representation Learning",
        venue="ICLR 2024 (2401.11430)",
    ),
    System(
        "lmd",
        "Latent Masking Diffusion",
        ("learn", "restore"),
        title="LMD: Faster Image Reconstruction with Latent Masking Diffusion",
        venue="AAAI 2024 (2312.07971)",
    ),
    System(
        "first_hitting",
        "time-free masked models: first-hitting sampler and honest categorical draws",
        ("generate", "measure"),
        title="Masked Diffusion Models are Secretly Time-Agnostic Masked Models and Exploit Inaccurate Categorical Sampling",
        venue="ICLR 2025 (2409.02908)",
    ),
    System(
        "maskunet",
        "time- and sample-wise masks over UNet weights",
        ("generate", "learn"),
        title="Not All Parameters Matter: Masking Diffusion Models for Enhancing Generation Ability",
        venue="CVPR 2025 (2505.03097)",
    ),
    System(
        "infedit",
        "Inversion-free editing (DDCM + unified attention control)",
        ("generate",),
        title="Inversion-Free Image Editing with Natural Language",
        venue="CVPR 2024 (2312.04965)",
    ),
    System(
        "ilm",
        "Insertion Language Model",
        ("learn", "generate"),
        title="Insertion Language Models: Sequence Generation with Arbitrary-Position Insertions",
        venue="arXiv 2025 (2505.05755)",
    ),
    System(
        "adjust",
        "Approximate joint sampling for masked diffusion LMs (ADJUST)",
        ("generate", "learn"),
        title="Enabling Approximate Joint Sampling in Diffusion LMs",
        venue="arXiv 2025 (2509.22738)",
    ),
    System(
        "context_start",
        "Context-aware initialisation for masked diffusion LMs",
        ("generate", "measure"),
        title="Context-Aware Initialization for Reducing Generative Path Length in Diffusion Language Models",
        venue="arXiv 2025 (2512.19004)",
    ),
    System(
        "masked_pdpp",
        "task-masked diffusion for procedure planning",
        ("learn", "generate"),
        title="Masked Diffusion with Task-awareness for Procedure Planning in Instructional Videos",
        venue="arXiv 2023 (2309.07409)",
    ),
    System(
        "paint_by_inpaint",
        "learn to add objects by removing them first (PIPE)",
        ("generate", "measure", "learn"),
        title="Paint by Inpaint: Learning to Add Image Objects by Removing Them First",
        venue="CVPR 2025 (2404.18212)",
    ),
    System(
        "omnitry",
        "mask-free try-on of any wearable object",
        ("generate", "learn", "measure"),
        title="OmniTry: Virtual Try-On Anything without Masks",
        venue="arXiv 2025 (2508.13632)",
    ),
    System(
        "self_distilled_gan",
        "Self-Distilled StyleGAN",
        ("learn", "find", "generate"),
        title="Self-Distilled StyleGAN: Towards Generation from Internet Photos",
        venue="SIGGRAPH 2022 (2202.12211)",
    ),
    System(
        "foodfusion",
        "composing a foreground dish into a background",
        ("generate", "learn", "measure"),
        title="Foodfusion: A Novel Approach for Food Image Composition via Diffusion Models",
        venue="arXiv 2024 (2408.14135)",
    ),
)
