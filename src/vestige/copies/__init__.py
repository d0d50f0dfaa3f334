"""Copies, replicas and their retrieval."""

from vestige.core.catalogue import Command, System

SYSTEMS = (
    System(
        "replication_audit",
        "Replication in Visual Diffusion Models (unveil · understand · mitigate)",
        ("find", "measure", "erase"),
        title="Replication in Visual Diffusion Models: A Survey and Outlook",
        venue="arXiv 2024 (2408.00001)",
        target="vestige.copies.replication_audit:ReplicationAudit",
        subject="dataset",
        commands=(
            Command(
                "vestige find made --data real --only replication_audit -o out/replayed.csv",
                "pictures that a generator drew, and those that it was trained on",
                "a table of which drawn picture is nearest to which training picture, and whether it replays it",
            ),
            Command(
                "vestige measure made --data real --reference faces --method replication_audit",
                "drawn pictures, training pictures and, with --reference, real pictures that were not trained on",
                "how many are replayed and how many would be by chance, with intervals; what replication goes with",
            ),
            Command(
                "vestige erase real --method replication_audit -o out/kept",
                "a folder of training pictures",
                "the folder without what it holds twice, the chief cause of replication",
            ),
        ),
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
        target="vestige.copies.copyscope:CopyScope",
        subject="dataset",
        commands=(
            Command(
                "vestige measure coalitions --reference protected --method copyscope --set distance=kid",
                "a folder for every subset of a generator's parts (none, base, base+style, ...), and protected pictures",
                "the share that each part has in the likeness, with its interval",
                quick="--set rounds=5",
            ),
        ),
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
            Command(
                "vestige find faces --only duplicates -o out/copies.csv",
                "a folder, parquet file or tar shard, or one for each split",
                "exact, near, cropped and edited copies, leakage between splits, labels that disagree",
                quick="--set deep=false",
            ),
        ),
    ),
    System(
        "copy_index",
        "copies of a picture in an index of any size, with the place that both show",
        ("find",),
        title="Aggregating Local Image Descriptors into Compact Codes",
        venue="TPAMI 2012",
        target="vestige.copies.search:Copies",
        kind="baseline",
        commands=(
            Command(
                "vestige index pictures -o out/my.index --descriptor local",
                "folders, pictures, parquet files or tar shards",
                "a folder that copies are looked for in; the same command adds what is new",
            ),
            Command(
                "vestige find elsewhere.jpg --in out/my.index -o out/copies --top 2",
                "pictures, and an index",
                "the copies with probability and matched region, drawn side by side",
            ),
        ),
    ),
)
