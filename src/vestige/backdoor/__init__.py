"""Backdoors and shortcuts in models."""

from vestige.core.catalogue import Command, System

SYSTEMS = (
    System(
        "ebyd",
        "Expose Before You Defend (Clean Unlearning + exposure + unified defence)",
        ("find", "erase"),
        title="Expose Before You Defend: Unifying and Enhancing Backdoor Defenses via Exposed Models",
        venue="arXiv 2024 (2410.19427)",
    ),
    System(
        "diff_cleanse",
        "Diff-Cleanse: trigger inversion and structural pruning for diffusion models",
        ("find", "erase"),
        title="Diff-Cleanse: Identifying and Mitigating Backdoor Attacks in Diffusion Models",
        venue="arXiv 2024 (2407.21316)",
    ),
    System(
        "whac_a_mole",
        "UrbanCars, ImageNet-W, and Last Layer Ensemble",
        ("measure", "learn"),
        title="A Whac-A-Mole Dilemma: Shortcuts Come in Multiples Where Mitigating One Amplifies Others",
        venue="CVPR 2023 (2212.04825)",
    ),
    System(
        "pickle_scan",
        "names the code hidden in a checkpoint's pickles",
        ("find",),
        title="Never a Dill Moment: Exploiting Machine Learning Pickle Files",
        venue="Trail of Bits 2021",
        target="vestige.backdoor.pickle_scan:PickleScan",
        kind="baseline",
        subject="model",
        commands=(
            Command("vestige find classifier.safetensors", "a model file or folder", "what loading it would run"),
            Command("vestige find checkpoints/weights.pt", "a checkpoint of pickles", "what loading it would run"),
            Command(
                "vestige find checkpoints/runs-code.pt --exit-code",
                "a pickle that calls a function",
                "the function's name",
                6,
            ),
        ),
    ),
)
