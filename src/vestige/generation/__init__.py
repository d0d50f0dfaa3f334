"""Making and editing pictures and sequences."""

from vestige.core.catalogue import Command, System

SYSTEMS = (
    System(
        "umd",
        "Unified Masked Diffusion (UMD)",
        ("learn", "generate"),
        title="Unified Auto-Encoding with Masked Diffusion",
        venue="arXiv 2024 (2406.17688)",
        target="vestige.generation.umd:UMD",
        commands=(
            Command(
                "vestige learn umd --data data/retain -o out/umd",
                "a folder of pictures, with or without labels",
                "umd.safetensors, which draws and represents; with labels it is fine-tuned to draw classes",
                quick="--set steps=2 --set batch_size=8 --set width=24 --set depth=1 --set tuning=2",
            ),
            Command(
                "vestige make --method umd --model out/umd/umd.safetensors -o out/drawn-umd.png --set steps=10",
                "umd.safetensors of a run; --prompt CLASS where it was trained with labels",
                "a sheet of 16 drawn pictures",
            ),
        ),
        network="recipe",
        subject="dataset",
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
        target="vestige.generation.first_hitting:FirstHitting",
        commands=(
            Command(
                'vestige make letter.txt --method first_hitting --prompt "the _ and the _" -o out/filled.txt',
                "a text whose order of words is learned, or --model, a masked language model; _ for words to draw",
                "a text, drawn exactly, with one network call a word",
            ),
            Command(
                "vestige measure letter.txt --method first_hitting",
                "a text, and --reference, a text of the law it should have",
                "variety of its words, and what 32-bit draws would take from it",
            ),
        ),
        subject="text",
    ),
    System(
        "maskunet",
        "time- and sample-wise masks over UNet weights",
        ("generate", "learn"),
        title="Not All Parameters Matter: Masking Diffusion Models for Enhancing Generation Ability",
        venue="CVPR 2025 (2505.03097)",
        target="vestige.generation.maskunet:MaskUNet",
        commands=(
            Command(
                "vestige learn maskunet --set base=pipeline -o out/maskunet",
                "a diffusers text-to-image folder, the shipped model without one",
                "masks.safetensors: which weights to switch off at each step",
                quick="--set steps=2 --set batch_size=4 --set scenes=16 --set samples=8",
            ),
            Command(
                'vestige make --method maskunet --model out/maskunet/masks.safetensors --prompt "a red boat on sand" '
                "-o out/drawn-masked.png",
                "masks of a run, and a prompt",
                "a picture drawn with the masked weights",
            ),
        ),
        network="recipe",
        subject="model",
    ),
    System(
        "infedit",
        "Inversion-free editing (DDCM + unified attention control)",
        ("generate",),
        title="Inversion-Free Image Editing with Natural Language",
        venue="CVPR 2024 (2312.04965)",
        target="vestige.generation.infedit:InfEdit",
        commands=(
            Command(
                'vestige make photo.png --method infedit --prompt "a blue boat on sand" '
                '--set source="a red boat on sand" -o out/edited.png',
                "a picture, what it shows and what it shall show; --model, any Stable Diffusion folder",
                "the edited picture, of the same size",
            ),
        ),
        network="shipped",
        weights=("scenes_text2image",),
        recipe="scenes_text2image",
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
    System(
        "scenes_text2image",
        "text-to-image diffusion on scenes, the reference of the diffusion engine",
        ("generate",),
        target="vestige.engines.diffusion.pipeline:TextToImage",
        kind="baseline",
        commands=(
            Command(
                'vestige make --method scenes_text2image --prompt "a large striped red boat in watercolour style on sand" '
                "-o out/drawn.png",
                "a prompt; --model, any diffusers text-to-image folder",
                "a picture, or a sheet with --set count=9",
            ),
        ),
        network="shipped",
        weights=("scenes_text2image",),
        recipe="scenes_text2image",
    ),
)
