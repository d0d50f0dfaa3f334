"""Bringing damaged pictures back."""

from vestige.core.catalogue import Command, System

SYSTEMS = (
    System(
        "mid",
        "Mask, Inpaint and Denoise",
        ("restore", "learn"),
        title="Unsupervised Real-World Denoising: Sparsity is All You Need",
        venue="arXiv 2503.21377 (2025, Chihaoui & Favaro)",
    ),
    System(
        "superinpaint",
        "SuperInpaint / DEAR",
        ("restore",),
        title="SuperInpaint: Learning Detail-Enhanced Attentional Implicit Representation for Super-resolutional Image Inpainting",
        venue="arXiv 2307.14489 (2023)",
    ),
    System(
        "cue",
        "Customized learnable priors for low-light enhancement",
        ("restore", "learn"),
        title="Empowering Low-Light Image Enhancer through Customized Learnable Priors",
        venue="ICCV 2023",
    ),
    System(
        "sam_diffsr",
        "Structure-modulated diffusion super-resolution",
        ("restore", "generate"),
        title="SAM-DiffSR: Structure-Modulated Diffusion Model for Image Super-Resolution",
        venue="arXiv 2402.17133 (2024)",
    ),
    System(
        "put",
        "PUT: un-quantised transformer for pluralistic inpainting",
        ("restore", "generate"),
        title="Reduce Information Loss in Transformers for Pluralistic Image Inpainting",
        venue="CVPR 2022",
    ),
    System(
        "rrformer",
        "UHD reflection removal benchmark and RRFormer",
        ("restore", "measure"),
        title="Benchmarking Ultra-High-Definition Image Reflection Removal",
        venue="arXiv 2308.00265 (2023)",
    ),
    System(
        "rbqe",
        "Early exit blind enhancement of compressed images",
        ("restore", "measure"),
        title="Early Exit or Not: Resource-Efficient Blind Quality Enhancement for Compressed Images",
        venue="ECCV 2020",
    ),
    System(
        "videopainter",
        "Context-branch video inpainting and editing of any length",
        ("restore", "generate"),
        title="VideoPainter: Any-length Video Inpainting and Editing with Plug-and-Play Context Control",
        venue="SIGGRAPH 2025 (arXiv 2503.05639)",
    ),
    System(
        "dreamclear",
        "GenIR data curation and DreamClear restoration",
        ("restore", "generate", "learn"),
        title="DreamClear: High-Capacity Real-World Image Restoration with Privacy-Safe Dataset Curation",
        venue="NeurIPS 2024 (arXiv 2410.18666)",
    ),
    System(
        "pfad",
        "MRI motion artefact purification in pixel and frequency domain",
        ("restore",),
        title="Motion Artifact Removal in Pixel-Frequency Domain via Alternate Masks and Diffusion Model",
        venue="AAAI 2025 (arXiv 2412.07590)",
    ),
    System(
        "dit_sr",
        "U-shaped isotropic diffusion transformer for SR",
        ("restore", "generate"),
        title="Effective Diffusion Transformer Architecture for Image Super-Resolution",
        venue="AAAI 2025 (arXiv 2409.19589)",
    ),
    System(
        "tad_sr",
        "Time-aware one-step distillation for SR",
        ("restore", "learn"),
        title="One Step Diffusion-based Super-Resolution with Time-Aware Distillation",
        venue="arXiv 2408.07476 (2024)",
    ),
    System(
        "ste",
        "Self-supervised text erasing with a learned synthesis policy",
        ("erase", "restore", "learn"),
        title="Self-Supervised Text Erasing with Controllable Image Synthesis",
        venue="ACM MM 2022 (arXiv 2204.12743)",
    ),
    System(
        "isp_dictionaries",
        "Invertible ISP with learned dictionaries",
        ("restore", "generate", "learn"),
        title="Model-Based Image Signal Processors via Learnable Dictionaries",
        venue="AAAI 2022 (arXiv 2201.03210)",
    ),
    System(
        "advdiff_sr",
        "Self-supervised super-resolution and prediction of advection–diffusion (S3RP)",
        ("restore", "generate"),
        title="S3RP: Self-Supervised Super-Resolution and Prediction for Advection-Diffusion Process",
        venue="arXiv 2111.04639 (2021)",
    ),
    System(
        "uhd_iqa",
        "UHD-IQA benchmark for blind photo quality",
        ("measure", "find"),
        title="UHD-IQA Benchmark Database: Pushing the Boundaries of Blind Photo Quality Assessment",
        venue="ECCV 2024 workshops (arXiv 2406.17472)",
    ),
    System(
        "inpaint_classic",
        "inpainting by fast marching or Navier-Stokes",
        ("restore", "erase"),
        title="An Image Inpainting Technique Based on the Fast Marching Method",
        venue="Journal of Graphics Tools 2004",
        target="vestige.restoration.inpaint:ClassicInpaint",
        kind="baseline",
        commands=(
            Command(
                "vestige restore pictures/covered.png --what holes --mask masks/covered.png --method inpaint_classic "
                "-o out/filled.png",
                "a picture and a mask, white where it is missing",
                "the picture, filled from around",
            ),
            Command(
                "vestige erase pictures/covered.png --what region --mask masks/covered.png --method inpaint_classic "
                "-o out/erased.png",
                "a picture and a mask, white where to erase",
                "the picture without the region",
            ),
        ),
    ),
    System(
        "nlm",
        "non-local means denoising",
        ("restore",),
        title="A Non-Local Algorithm for Image Denoising",
        venue="CVPR 2005",
        target="vestige.restoration.denoise:NonLocalMeans",
        kind="baseline",
        commands=(
            Command(
                "vestige restore photo.png --method nlm -o out/denoised.png", "a noisy picture", "the picture denoised"
            ),
        ),
    ),
    System(
        "lanczos",
        "Lanczos resampling",
        ("restore",),
        title="Lanczos Filtering in One and Two Dimensions",
        venue="Journal of Applied Meteorology 1979",
        target="vestige.restoration.upscale:Lanczos",
        kind="baseline",
        commands=(
            Command(
                "vestige restore small.png --what size --scale 2 --method lanczos -o out/enlarged.png",
                "a small picture",
                "the picture enlarged",
            ),
        ),
    ),
)
