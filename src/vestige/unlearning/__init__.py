"""Making models forget, and measuring it."""

from vestige.core.catalogue import Command, System
from vestige.core.errors import NOT_MEASURABLE, SUPPRESSED

_REQUEST = "--forget data/requests --retain data/retain --test data/test"


def _erase(slug: str, quick: str = "--set epochs=1") -> Command:
    """The command of an eraser of classifiers."""
    return Command(
        f"vestige erase classifier.safetensors {_REQUEST} --method {slug} -o out/{slug}.safetensors",
        "a classifier; the pictures to forget, those to keep and some it never saw",
        "the model that forgot, and its audit as JSON and HTML",
        quick=f"--audit brief --size 16 {quick}".strip(),
        # The kit's 24 requests are too few to tell; an edit of the last layer alone is seen without any statistics.
        exit_code=SUPPRESSED if slug in _LAST_LAYER else NOT_MEASURABLE,
    )


#: Erasers that change nothing but the last layer of the kit's classifier.
_LAST_LAYER = ("acu", "fisher_forget")
#: Of erasers that have no epochs to shorten.
_QUICK = {"retrain": "", "unsir": "--set steps=2 --set noise=24", "influence": "", "fisher_forget": ""}

SYSTEMS = (
    System(
        "sparse_unlearn",
        "prune first, then unlearn; l1-sparse",
        ("erase", "measure"),
        title="Model Sparsity Can Simplify Machine Unlearning",
        venue="NeurIPS 2023 (spotlight)",
        target="vestige.unlearning.sparse_unlearn:SparseUnlearn",
        subject="model",
        commands=(
            _erase("sparse_unlearn", "--set recover_epochs=1"),
            Command(
                "vestige measure classifier.safetensors out/sparse_unlearn.safetensors --method sparse_unlearn --data data",
                "models before and after, and a folder with requests, retain and test; --reference a retrained model",
                "density and unlearning metrics of each",
            ),
        ),
    ),
    System(
        "ssd",
        "Selective Synaptic Dampening",
        ("erase",),
        title="Fast Machine Unlearning Without Retraining Through Selective Synaptic Dampening",
        venue="AAAI 2024",
        target="vestige.unlearning.ssd:SSD",
        subject="model",
        commands=(_erase("ssd", ""),),
    ),
    System(
        "corrective",
        "corrective machine unlearning",
        ("measure", "erase"),
        title="Corrective Machine Unlearning",
        venue="TMLR 2024",
        target="vestige.unlearning.corrective:Corrective",
        subject="model",
        commands=(
            Command(
                "vestige erase backdoor/classifier.safetensors --forget backdoor/known --retain backdoor/rest "
                "--test data/test --method corrective -o out/corrective.safetensors",
                "a classifier trained on manipulated pictures, those of them that were found, and all others",
                "the corrected model, and its audit as JSON and HTML",
                quick="--audit brief --size 16",
                exit_code=NOT_MEASURABLE,
            ),
            Command(
                "vestige measure backdoor/classifier.safetensors out/corrective.safetensors --method corrective "
                "--data data/test --set target=star --set side=5",
                "models, and clean pictures with true labels; --reference pictures that the manipulation hurts",
                "accuracy on hurt and on clean pictures, and how often the trigger works",
            ),
        ),
    ),
    System(
        "worst_case",
        "worst-case forget sets by bi-level optimisation",
        ("attack", "measure"),
        title="Challenging Forgets: Unveiling the Worst-Case Forget Sets in Machine Unlearning",
        venue="ECCV 2024",
        target="vestige.unlearning.worst_case:WorstCase",
        subject="model",
        commands=(
            Command(
                "vestige attack classifier.safetensors --method worst_case --data data/retain --set count=20 "
                "-o out/hardest.csv",
                "a classifier and its training pictures",
                "a list of the pictures whose influence is hardest to erase",
            ),
            Command(
                "vestige measure classifier.safetensors hidden.safetensors --method worst_case --data data/retain "
                "--reference out/hardest.csv",
                "models before and after forgetting, and such a list",
                "what each still says about the hardest pictures and about as many random ones",
            ),
        ),
    ),
    System(
        "regression_unlearn",
        "Blindspot and Gaussian fine-tuning for regressors",
        ("erase", "measure"),
        title="Deep Regression Unlearning",
        venue="ICML 2023",
        target="vestige.unlearning.regression_unlearn:Blindspot",
        subject="model",
        commands=(
            Command(
                "vestige erase regressor.safetensors --forget discs/requests --retain discs/retain --test discs/test "
                "--build small_regressor:build --method regression_unlearn -o out/regressor.safetensors",
                "a network with one output and what builds it; pictures in a folder for each target, as 23/face.png",
                "the network that forgot, and its errors",
            ),
            Command(
                "vestige measure regressor.safetensors out/regressor.safetensors --method regression_unlearn --data discs "
                "--build small_regressor:build",
                "networks before and after, and a folder with requests, retain and test; --reference a retrained network",
                "errors on each part; with a retrained network the distance to it, membership and relearning",
            ),
        ),
    ),
    System(
        "acu",
        "analytic continual unlearning",
        ("erase", "learn"),
        title="ACU: Analytic Continual Unlearning for Efficient and Exact Forgetting with Privacy Preservation",
        venue="arXiv 2505.12239 (2025)",
        target="vestige.unlearning.acu:ACU",
        subject="model",
        commands=(
            Command(
                "vestige erase head.safetensors --forget data/requests --test data/test --method acu "
                "-o out/head.safetensors",
                "an analytic head that 'vestige learn acu' made, and the pictures to forget; no others are needed",
                "the head as if it had never learned them",
            ),
            _erase("acu", ""),
            Command(
                "vestige learn acu --data data/retain",
                "a folder class/*.png; --set backbone=CLASSIFIER, --set start=HEAD to go on learning",
                "head.safetensors",
                quick="--set width=64 --set backbone=classifier.safetensors",
            ),
        ),
        network="recipe",
    ),
    System(
        "laf",
        "Label-Agnostic Forgetting",
        ("erase",),
        title="Label-Agnostic Forgetting: A Supervision-Free Unlearning in Deep Models",
        venue="ICLR 2024",
        target="vestige.unlearning.laf:LAF",
        subject="model",
        commands=(_erase("laf", "--set loops=1 --set vae_epochs=1"),),
    ),
    System(
        "repr_audit",
        "representation-level evaluation",
        ("measure",),
        title="Are We Truly Forgetting? A Critical Re-examination of Machine Unlearning Evaluation Protocols",
        venue="2025 (arXiv 2503.06991)",
        target="vestige.unlearning.repr_audit:ReprAudit",
        subject="model",
        commands=(
            Command(
                "vestige measure classifier.safetensors hidden.safetensors --method repr_audit --data data "
                "--set label=umbrella",
                "models before and after, and a folder with requests, retain and test; --reference a retrained model",
                "what each says, and what a new head, similarity and neighbours find in its features",
            ),
        ),
    ),
    System(
        "sae_restore",
        "suppression or deletion by SAE restoration",
        ("attack", "measure"),
        title="Suppression or Deletion: A Restoration-Based Representation-Level Analysis of Machine Unlearning",
        venue="WWW 2026 (short)",
        target="vestige.unlearning.sae_restore:SaeRestore",
        subject="model",
        commands=(
            Command(
                "vestige attack hidden.safetensors --method sae_restore --model classifier.safetensors --data data "
                "--set label=umbrella -o out/restored.csv",
                "a model that was made to forget a class, the model before, and a folder with requests, retain and test",
                "what it calls each test picture of the class before and after restoration",
                quick="--set epochs=1",
            ),
            Command(
                "vestige measure classifier.safetensors hidden.safetensors --method sae_restore --data data "
                "--set label=umbrella",
                "models before and after; --reference a retrained model, for a verdict",
                "how far the class comes back, and what other layers still read",
                quick="--set epochs=1",
            ),
        ),
    ),
    System(
        "mufac",
        "identity-unlearning benchmark (MUFAC / MUCAC)",
        ("measure",),
        title="Towards Machine Unlearning Benchmarks: Forgetting the Personal Identities in Facial Recognition Systems",
        venue="AAAI 2024 PPAI workshop",
        target="vestige.unlearning.mufac:Mufac",
        subject="model",
        commands=(
            Command(
                "vestige measure classifier.safetensors --method mufac --data data",
                "a classifier, or several (before, after, retrained), and a folder with requests, retain, test and "
                "unseen people where there are any, each class/*.png",
                "utility A, memory M with its interval, NoMUS and the loss gap",
            ),
        ),
    ),
    System(
        "fiubench",
        "fictitious-identity unlearning for vision-language models",
        ("measure", "erase", "attack"),
        title="Benchmarking Vision Language Model Unlearning via Fictitious Facial Identity Dataset",
        venue="ICLR 2025",
        target="vestige.unlearning.fiubench:FiuBench",
        subject="model",
        network="recipe",
        commands=(
            Command(
                "vestige erase vlm --method fiubench --forget facts/facts.jsonl --out out/vlm-without",
                "a folder of a vision-language model, and facts about pictures, marked forget or retain",
                "a copy of the model that was tuned to forget",
            ),
            Command(
                "vestige measure vlm --method fiubench --data facts/facts.jsonl",
                "one or more models and the same facts, with --reference a model that was never told them",
                "match, ROUGE, probability, truth, extraction (APE), Min-K and utility",
            ),
            Command(
                "vestige attack vlm --method fiubench --data facts/facts.jsonl",
                "a model and the same facts with other wordings of the questions",
                "each fact that some wording brings out",
            ),
        ),
    ),
    System(
        "unlok_vqa",
        "deleting multimodal facts under attack",
        ("erase", "attack", "measure"),
        title="Unlearning Sensitive Information in Multimodal LLMs: Benchmark and Attack-Defense Evaluation",
        venue="TMLR 2024",
        target="vestige.unlearning.unlok_vqa:UnlokVqa",
        subject="model",
        network="recipe",
        commands=(
            Command(
                "vestige erase vlm --method unlok_vqa --forget facts/facts.jsonl --set fact=1 --out out/vlm-edited",
                "a folder of a vision-language model, and facts about pictures, one of which is to be deleted",
                "a copy of the model with one matrix edited",
            ),
            Command(
                "vestige attack vlm --method unlok_vqa --data facts/facts.jsonl --set fact=1",
                "a model, and the facts",
                "what each attack, inside and from outside, names as candidates for the deleted answer",
            ),
            Command(
                "vestige measure vlm --method unlok_vqa --data facts/facts.jsonl",
                "one or more models, the unedited first, and the facts",
                "how often each attack finds the answers to forget, and how many others are kept",
            ),
        ),
    ),
    System(
        "forgetme",
        "training-free local forgetting data and the Entangled metric",
        ("erase", "measure"),
        title="Prompt-Driven and Training-Free Forgetting Approach and Dataset for Large Language Models (later titled ForgetMe)",
        venue="2025",
        target="vestige.unlearning.forgetme:ForgetMe",
        commands=(
            Command(
                'vestige erase small.png --method forgetme --prompt "a blue cup" --model pipeline '
                "--out out/forgotten.png",
                "a picture, words for what is to be forgotten, and a text-to-image pipeline that finds it (or a mask)",
                "the picture without it, and the mask that was used",
            ),
            Command(
                "vestige measure before.png edited.png --method forgetme --mask edit-mask.png",
                "a picture before and after a removal, and what was to be removed",
                "Entangled-D and Entangled-S",
            ),
        ),
    ),
    System(
        "zk_apex",
        "verifiable personalised unlearning (masking + Group-OBS + proof)",
        ("erase", "measure"),
        title="ZK-APEX: Zero-Knowledge Approximate Personalized Unlearning with Executable Proofs",
        venue="MLSys 2026 (arXiv 2025)",
        target="vestige.unlearning.zk_apex:ZkApex",
        subject="model",
        commands=(
            Command(
                "vestige erase classifier.safetensors --method zk_apex --forget data/requests --retain data/retain "
                "--test data/test --out out/zk.safetensors",
                "a classifier, pictures to forget, retained and test pictures, each class/*.png",
                "a new model, its audit, and a proof of the update",
                quick="--audit brief",
                exit_code=NOT_MEASURABLE,
            ),
            Command(
                "vestige measure classifier.safetensors --method zk_apex --data data",
                "a classifier, or the one before and the one after with --reference PROOF, and a folder with requests, "
                "retain and test",
                "accuracies with and without making up for the mask, or whether the proof holds",
            ),
        ),
    ),
    System(
        "ununlearning",
        "in-context reintroduction",
        ("attack", "measure"),
        title="UnUnlearning: Unlearning is not sufficient for content regulation in advanced generative AI",
        venue="2024 (position paper)",
        target="vestige.unlearning.ununlearning:UnUnlearning",
        subject="model",
        commands=(
            Command(
                "vestige attack speaker --method ununlearning --data names.jsonl",
                "a folder of a causal language model, and forgotten facts with contexts that bring them back",
                "what the model says without and with each context, and what a filter of words would stop",
            ),
            Command(
                "vestige measure speaker --method ununlearning --data names.jsonl",
                "one or more language models and the facts, with --reference the model before unlearning",
                "the share of facts named without and with each context, and the recovery",
            ),
        ),
    ),
    # The standard erasers that every system of this wing is compared with.
    *(
        System(
            slug,
            name,
            ("erase",),
            title=title,
            venue=venue,
            target=f"vestige.unlearning.{target}",
            kind="baseline",
            subject="model",
            commands=(_erase(slug, _QUICK.get(slug, "--set epochs=1")),),
        )
        for slug, name, target, title, venue in (
            ("retrain", "retraining without the forgotten data", "baselines:Retrain", "", ""),
            ("finetune", "fine-tuning on the retained data", "baselines:FineTune", "", ""),
            (
                "cfk",
                "fine-tuning of the last k blocks",
                "baselines:CFk",
                "Towards Adversarial Evaluations for Inexact Machine Unlearning",
                "2022",
            ),
            (
                "euk",
                "retraining of the last k blocks",
                "baselines:EUk",
                "Towards Adversarial Evaluations for Inexact Machine Unlearning",
                "2022",
            ),
            (
                "random_labels",
                "random labels (amnesiac unlearning)",
                "baselines:RandomLabels",
                "Amnesiac Machine Learning",
                "AAAI 2021",
            ),
            ("grad_ascent", "gradient ascent", "baselines:GradAscent", "", ""),
            (
                "neggrad_plus",
                "NegGrad+",
                "baselines:NegGradPlus",
                "Towards Unbounded Machine Unlearning",
                "NeurIPS 2023",
            ),
            ("bad_teacher", "bad teacher", "baselines:BadTeacher", "Can Bad Teaching Induce Forgetting?", "AAAI 2023"),
            (
                "unsir",
                "UNSIR: impair with learned noise, repair",
                "baselines:Unsir",
                "Fast Yet Effective Machine Unlearning",
                "TNNLS 2023",
            ),
            ("boundary_shrink", "boundary shrink", "baselines:BoundaryShrink", "Boundary Unlearning", "CVPR 2023"),
            ("salun", "SalUn: random labels on salient weights", "baselines:SalUn", "SalUn", "ICLR 2024"),
            ("scrub", "SCRUB", "baselines:Scrub", "Towards Unbounded Machine Unlearning", "NeurIPS 2023"),
            (
                "influence",
                "influence step with WoodFisher",
                "baselines_fisher:Influence",
                "Model Sparsity Can Simplify Machine Unlearning",
                "NeurIPS 2023",
            ),
            (
                "fisher_forget",
                "Fisher forgetting",
                "baselines_fisher:FisherForget",
                "Eternal Sunshine of the Spotless Net",
                "CVPR 2020",
            ),
            (
                "l1_sparse",
                "fine-tuning with a shrinking l1 penalty",
                "sparse_unlearn:L1Sparse",
                "Model Sparsity Can Simplify Machine Unlearning",
                "NeurIPS 2023",
            ),
        )
    ),
)
