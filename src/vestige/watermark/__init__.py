"""Marks that survive, and the attacks that remove them."""

from vestige.core.catalogue import Command, System

SYSTEMS = (
    System(
        "maskmark",
        "MaskMark-D and MaskMark-ED (MaskWM in the final version)",
        ("mark", "find", "learn"),
        title="Mask Image Watermarking",
        venue="NeurIPS 2025 (arXiv 2504.12739)",
        target="vestige.watermark.maskmark:MaskMark",
        commands=(
            Command(
                "vestige mark photo.png --method maskmark -m hello -k kit.key -o out/maskmark.png",
                "pictures; --mask keeps the mark to a region",
                "marked pictures",
            ),
            Command(
                "vestige read out/maskmark.png --method maskmark -k kit.key",
                "pictures",
                "the message, or that there is none",
            ),
            Command(
                "vestige find out/maskmark.png --only maskmark --out out/maskmark-report",
                "pictures",
                "a report with a map of where the mark is",
            ),
            Command(
                "vestige learn maskmark",
                "photographs of the data packs, or rendered scenes without them",
                "maskmark.safetensors, for --model",
                quick="--set steps=2 --set limit=16 --set held=2 --set batch_size=4 --set segments=4 --set validate_every=0",
            ),
        ),
        network="shipped",
        weights=("maskmark",),
    ),
    System(
        "keyss",
        "KeySS: key-secured secrets in 3D Gaussian splatting",
        ("mark", "measure"),
        title="All That Glitters Is Not Gold: Key-Secured 3D Secrets within 3D Gaussian Splatting",
        venue="ICLR 2026 (arXiv 2503.07191)",
        target="vestige.watermark.keyss:KeySS",
        commands=(
            Command(
                "vestige mark cover.ply --method keyss --reference secret.ply -k kit.key -o out/published.ply",
                "two scenes of 3D Gaussians (standard .ply), to show and to hide",
                "the scene to publish and its decoder, published.safetensors",
                quick="--set steps=20",
            ),
            Command(
                "vestige read out/published.ply --method keyss --model out/published.safetensors -k kit.key -o out/opened.ply",
                "a published scene, its decoder and the key",
                "the scene that the key opens (.ply), or views of it (.png)",
            ),
            Command(
                "vestige measure cover.ply out/published.ply --method keyss",
                "two scenes",
                "distances of their statistics",
            ),
        ),
    ),
    System(
        "robust_limits",
        "limits of image detectors: purification, substitution, spoofing, trade-off",
        ("attack", "measure"),
        title="Robustness of AI-Image Detectors: Fundamental Limits and Practical Attacks",
        venue="ICLR 2024 (arXiv 2310.00076)",
        target="vestige.watermark.robust_limits:RobustLimits",
        commands=(
            Command(
                "vestige attack pictures/marked.jpg --method robust_limits -o out/purified.png",
                "a marked picture",
                "the picture noised and denoised by a diffusion model",
                quick="--set side=64 --set steps=10",
            ),
            Command(
                "vestige attack photo.png --method robust_limits --set how=spoof --key kit.key -o out/spoofed.png",
                "a picture without a mark",
                "a picture that dwt_dct_svd reads as marked with that key",
            ),
            Command(
                "vestige measure made real --method robust_limits",
                "a folder of marked (or generated) and one of other pictures",
                "bounds on every detector that tells them apart, and what a small one reaches",
                quick="--set epochs=1",
            ),
        ),
        network="shipped",
        recipe="scenes_text2image",
        weights=("scenes_text2image",),
    ),
    System(
        "vine",
        "VINE (VINE-B, VINE-R) and W-Bench",
        ("mark", "measure", "learn"),
        title="Robust Watermarking Using Generative Priors Against Image Editing: From Benchmarking to Advances",
        venue="ICLR 2025 (arXiv 2410.18775)",
        target="vestige.watermark.vine:Vine",
        commands=(
            Command(
                "vestige mark photo.png --method vine -m hello -k kit.key -o out/vine.png",
                "pictures",
                "marked pictures",
            ),
            Command(
                "vestige read out/vine.png --method vine -k kit.key", "pictures", "the message, or that there is none"
            ),
            Command(
                "vestige measure pictures --method vine --set mark=vine",
                "a folder of pictures and the name of any marker",
                "a row for every edit: marked pictures found, bits read, bands of frequencies left",
                quick="--set count=4 --set side=64",
            ),
            Command(
                "vestige learn vine",
                "photographs of the data packs, or rendered scenes without them",
                "vine.safetensors, for --model",
                quick="--set steps=2 --set limit=16 --set held=2 --set batch_size=4 --set validate_every=0",
            ),
        ),
        network="shipped",
        weights=("vine",),
    ),
    System(
        "distortion_free_text",
        "robust distortion-free token watermarks (ITS, EXP, edit variants)",
        ("mark", "generate", "find"),
        title="Robust Distortion-free Watermarks for Language Models",
        venue="TMLR 2024 (arXiv 2307.15593)",
        target="vestige.watermark.distortion_free_text:DistortionFreeText",
        commands=(
            Command(
                "vestige make --method distortion_free_text --model lm --prompt 'The lighthouse' -k kit.key -o "
                "out/made.txt",
                "a folder of a causal language model and a beginning",
                "the text continued by words that the key chose",
            ),
            Command(
                "vestige mark letter.txt --method distortion_free_text --model lm -k kit.key -o out/continued.txt",
                "a text and a folder of a causal language model",
                "the text continued by words that the key chose",
            ),
            Command(
                "vestige read out/made.txt --method distortion_free_text --model lm -k kit.key",
                "a text and the folder of the model that wrote it",
                "whether it was written with that key, with a p-value",
            ),
            Command(
                "vestige find out/made.txt --only distortion_free_text --model lm -k kit.key",
                "a text and the folder of the model that wrote it",
                "the same as an examination",
            ),
        ),
        subject="text",
    ),
    System(
        "text_blackbox",
        "watermarking text from a black-box language model by synonym choice",
        ("mark", "find"),
        title="Watermarking Text Generated by Black-Box Language Models",
        venue="arXiv 2305.08883 (2023)",
        target="vestige.watermark.text_blackbox:TextBlackbox",
        commands=(
            Command(
                "vestige mark letter.txt --method text_blackbox -k kit.key -o out/letter.txt",
                "a text in English",
                "the text with some words replaced by synonyms",
            ),
            Command(
                "vestige read out/letter.txt --method text_blackbox -k kit.key",
                "a text",
                "whether it carries the mark of that key, with a p-value",
            ),
            Command(
                "vestige find letter.txt --only text_blackbox -k kit.key",
                "a text",
                "whether it carries the mark of that key, with a p-value",
            ),
        ),
        subject="text",
    ),
    System(
        "ctrlregen",
        "CtrlRegen and CtrlRegen+: removal by controllable regeneration",
        ("attack",),
        title="Image Watermarks Are Removable Using Controllable Regeneration from Clean Noise",
        venue="ICLR 2025 (arXiv 2410.05470)",
        target="vestige.watermark.ctrlregen:CtrlRegen",
        commands=(
            Command(
                "vestige attack pictures/marked.jpg --method ctrlregen -o out/ctrlregen.png",
                "a marked picture",
                "the picture redrawn from noise under its own meaning and edges",
                quick="--set side=64 --set steps=3",
            ),
        ),
        network="shipped",
        weights=(
            "scenes_text2image",
            "ctrlregen.safetensors",
        ),
    ),
    System(
        "visual_paraphrase",
        "caption-guided image-to-image attack on watermarks",
        ("attack", "measure"),
        title="The Brittleness of AI-Generated Image Watermarking Techniques: Examining Their Robustness Against Visual Paraphrasing Attacks",
        venue="arXiv 2408.10446, 2024",
        target="vestige.watermark.visual_paraphrase:VisualParaphrase",
        commands=(
            Command(
                "vestige attack pictures/marked.jpg --method visual_paraphrase --prompt 'a large red ball on "
                "grass' -o out/paraphrase.png",
                "a marked picture and its caption, or a captioner",
                "the picture redrawn from its caption",
                quick="--set side=64 --set steps=4",
            ),
            Command(
                "vestige measure marked unmarked --method visual_paraphrase --prompt 'a large red ball on grass' "
                "-k kit.key",
                "a folder of marked and one of unmarked pictures",
                "how well the mark is still found after redrawing, by strength",
                quick="--set side=64 --set steps=2 --set strengths=0.5",
            ),
        ),
        network="shipped",
        recipe="scenes_text2image",
        weights=("scenes_text2image",),
    ),
    System(
        "wouaf",
        "WOUAF: per-user weight modulation of the image decoder",
        ("mark", "find", "learn"),
        title="WOUAF: Weight Modulation for User Attribution and Fingerprinting in Text-to-Image Diffusion Models",
        venue="CVPR 2024 (arXiv 2306.04744)",
        target="vestige.watermark.wouaf:Wouaf",
        commands=(
            Command(
                "vestige mark vae --method wouaf --user ada --registry out/users.json -k kit.key -o out/ada",
                "a diffusers folder (pipeline or autoencoder), a user's name, the file of users",
                "the user's copy of the folder, the file of users, and ada-picture.png drawn through the copy",
            ),
            Command(
                "vestige read out/ada-picture.png --registry out/users.json --rate 0.05",
                "pictures and the file of users",
                "whose copy made them, or that nobody can be named",
            ),
            Command(
                "vestige find out/ada-picture.png --only wouaf --reference out/users.json",
                "pictures and the file of users",
                "a row for every picture: the nearest user and the chance of such agreement",
            ),
            Command(
                "vestige learn wouaf",
                "an autoencoder (--set vae=FOLDER) and photographs or rendered scenes",
                "wouaf.safetensors, for --model",
                quick="--set steps=2 --set pictures=16 --set batch_size=4 --set limit=8 --set held=2 --set validate_every=0",
            ),
        ),
        network="shipped",
        weights=("wouaf",),
    ),
    System(
        "safe_sd",
        "Safe-SD: graphical watermark injected during generation, triggered by text",
        ("mark", "find", "learn"),
        title="Safe-SD: Safe and Traceable Stable Diffusion with Text Prompt Trigger for Invisible Generative Watermarking",
        venue="ACM MM 2024 (arXiv 2407.13188)",
        target="vestige.watermark.safe_sd:SafeSD",
        commands=(
            Command(
                'vestige mark logo.png --method safe_sd --prompt "a red ball on sand, signed" -k kit.key -o out/signed.png',
                "a black-and-white mark, and a prompt with a trigger word",
                "a picture for the prompt that hides the mark",
            ),
            Command(
                "vestige read out/signed.png --method safe_sd --reference logo.png -k kit.key -o out/revealed.png",
                "a picture, the mark it may hide, and the key",
                "whether it is there, and what the key shows",
            ),
            Command(
                "vestige find out/signed.png --only safe_sd --reference logo.png -k kit.key",
                "a picture, the mark it may hide, and the key",
                "the correlation with the mark, and its threshold",
            ),
            Command(
                "vestige learn safe_sd",
                "rendered scenes, which it draws itself",
                "the folder safe_sd, for --model",
                quick="--set steps=4 --set second=2 --set second_batch=4 --set marks=4 --set scenes=16 --set held=4 --set batch_size=4 --set validate_every=0",
            ),
        ),
        network="shipped",
        weights=("safe_sd",),
    ),
    System(
        "screenmark",
        "ScreenMark: watermark for anything shown on a screen",
        ("mark", "generate", "learn"),
        title="ScreenMark: Watermarking Arbitrary Visual Content on Screen",
        venue="AAAI 2025 (arXiv 2409.03487)",
        target="vestige.watermark.screenmark:ScreenMark",
        commands=(
            Command(
                "vestige make --method screenmark -m hello -k kit.key -o out/overlay.png",
                "a message and a key",
                "the overlay, a .png with transparency to tile over a screen",
            ),
            Command(
                "vestige mark pictures/untouched-flower.jpg --method screenmark -m hello -k kit.key -o out/screen.png",
                "pictures of screens",
                "the same with the overlay",
            ),
            Command(
                "vestige read out/screen.png --method screenmark -k kit.key",
                "screenshots",
                "the message, or that there is none",
            ),
            Command(
                "vestige learn screenmark",
                "photographs of the data packs, or rendered scenes without them",
                "screenmark.safetensors, for --model",
                quick="--set steps=2 --set limit=16 --set held=2 --set batch_size=4 --set screens=4 --set validate_every=0",
            ),
        ),
        network="shipped",
        weights=("screenmark",),
    ),
    System(
        "copyrightmeter",
        "CopyrightMeter: one audit for cloaks, sanitised models and watermarks",
        ("measure",),
        title="CopyrightMeter: Revisiting Copyright Protection in Text-to-image Models",
        venue="2024 (arXiv 2411.13144)",
        target="vestige.watermark.copyrightmeter:CopyrightMeter",
        commands=(
            Command(
                "vestige measure cloaked uncloaked --method copyrightmeter",
                "a folder of protected pictures and one of the originals",
                "whether a generator can imitate them, before and after each attack",
                quick="--set seeds=2 --set updates=1 --set pictures=2 --set steps=2 --set attacks=2",
            ),
        ),
        network="shipped",
        weights=(
            "scenes_text2image",
            "feature_net.safetensors",
        ),
    ),
    System(
        "face_adv_watermark",
        "adversarial watermarking against face recognition",
        ("attack", "measure", "learn"),
        title="Adversarial Watermarking for Face Recognition",
        venue="2024 (arXiv 2409.16056)",
        target="vestige.watermark.face_adv_watermark:FaceAdvWatermark",
        commands=(
            Command(
                "vestige learn face_adv_watermark --out out/learn/faces",
                "the faces pack, or drawn people without it",
                "a face recogniser and a mark, for the two commands below",
                quick="--set steps=2 --set batch_size=8",
            ),
            Command(
                "vestige attack face.png --method face_adv_watermark --model out/learn/faces/pair.safetensors -o "
                "out/face.png",
                "a face and the trained pair",
                "the face, changed so that marking it breaks recognition",
                quick="--set steps=4",
            ),
            Command(
                "vestige measure faces --method face_adv_watermark --model out/learn/faces/pair.safetensors",
                "a folder PERSON/VIEW.png and the trained pair",
                "matching before and after the change and the mark",
                quick="--set steps=4",
            ),
        ),
        network="recipe",
    ),
    System(
        "ddsp",
        "Deep Digital Steganography Purifier",
        ("attack", "erase"),
        title="Destruction of Image Steganography using Generative Adversarial Networks",
        venue="arXiv 1912.10070, 2019",
        target="vestige.watermark.ddsp:DDSP",
        commands=(
            Command(
                "vestige attack pictures/payload.png --method ddsp -o out/purified-of-payload.png",
                "a picture that may hide something",
                "the picture with its lowest bit planes drawn anew",
            ),
            Command(
                "vestige erase pictures/payload.png --method ddsp -o out/without-payload.png",
                "a picture that may hide something",
                "the picture with its lowest bit planes drawn anew",
            ),
        ),
        network="shipped",
        weights=("ddsp.safetensors",),
    ),
    System(
        "spread_spectrum",
        "default mark: keyed spread spectrum with pilots, informed embedding and blind registration",
        ("mark",),
        title="Secure Spread Spectrum Watermarking for Multimedia",
        venue="IEEE TIP 1997",
        target="vestige.watermark.spread_spectrum:SpreadSpectrum",
        kind="baseline",
        commands=(
            Command("vestige mark photo.png -m vestige -k kit.key -o out/marked.png", "pictures", "marked pictures"),
            Command("vestige read pictures/marked.jpg -k kit.key", "pictures", "the message, or that there is none"),
        ),
    ),
    System(
        "content_bound",
        "the default mark bound to its picture: neither folding nor averaging marked pictures forges or removes it",
        ("mark",),
        title="Using Digital Watermarks with Image Signatures to Mitigate the Threat of the Copy Attack",
        venue="ICASSP 2003",
        target="vestige.watermark.content_bound:ContentBound",
        kind="baseline",
        commands=(
            Command(
                "vestige mark photo.png --method content_bound -m vestige -k kit.key -o out/bound.png",
                "pictures",
                "marked pictures, which 'vestige read' reads",
            ),
        ),
    ),
    System(
        "hidden",
        "HiDDeN: convolutions that hide bits and read them",
        ("mark", "learn"),
        title="HiDDeN: Hiding Data with Deep Networks",
        venue="ECCV 2018",
        target="vestige.watermark.hidden:Hidden",
        kind="baseline",
        commands=(
            Command(
                "vestige learn hidden -o out/hidden",
                "photographs of the data packs, or rendered scenes without them",
                "out/hidden/hidden.safetensors, for --model",
                quick="--set steps=2 --set limit=16 --set held=2 --set batch_size=4 --set validate_every=0",
            ),
            Command(
                "vestige mark photo.png --method hidden --model out/hidden/hidden.safetensors -m hello -k kit.key -o out/hidden.png",
                "pictures and the trained network",
                "marked pictures, which 'vestige read --method hidden --model' reads",
            ),
        ),
        network="recipe",
    ),
    System(
        "dwt_dct_svd",
        "keyed DWT-DCT-SVD watermark with synchronisation and authentication",
        ("mark",),
        title="Digital Image Watermarking Based on DWT, DCT and SVD",
        venue="classical",
        target="vestige.watermark.dwt_dct_svd:DwtDctSvd",
        kind="baseline",
        commands=(
            Command(
                "vestige mark photo.png --method dwt_dct_svd -m vestige -k kit.key -o out/dwt-dct-svd.png",
                "pictures of at least 192 pixels a side",
                "marked pictures",
            ),
            Command(
                "vestige read out/dwt-dct-svd.png --method dwt_dct_svd -k kit.key",
                "pictures",
                "the message, or that there is none",
            ),
        ),
    ),
    System(
        "find_mark",
        "looks for vestige's own marks",
        ("find",),
        target="vestige.watermark.find_mark:FindMark",
        kind="baseline",
        panel=True,
        frames=True,
        commands=(
            Command(
                "vestige find pictures/marked.jpg --only find_mark --key kit.key",
                "pictures and keys",
                "whether a mark of one of the keys is there, and what it says",
            ),
        ),
    ),
    System(
        "green_list",
        "green-list token watermark (logit bias)",
        ("mark", "generate", "find"),
        title="A Watermark for Large Language Models",
        venue="ICML 2023",
        target="vestige.watermark.text_baselines:GreenList",
        commands=(
            Command(
                "vestige make --method green_list --model lm --prompt 'The old lighthouse' -k kit.key -o "
                "out/green_list.txt",
                "a folder of a causal language model and a beginning",
                "the text continued by marked words",
            ),
            Command(
                "vestige mark letter.txt --method green_list --model lm -k kit.key -o out/green_list-continued.txt",
                "a text and a folder of a causal language model",
                "the text continued by marked words",
            ),
            Command(
                "vestige read out/green_list.txt --method green_list --model lm -k kit.key",
                "a text and the folder of the model that wrote it",
                "whether it was written with that key, with a p-value",
            ),
            Command(
                "vestige find out/green_list.txt --only green_list --model lm -k kit.key",
                "a text and the folder of the model that wrote it",
                "the same as an examination",
            ),
        ),
        subject="text",
        kind="baseline",
    ),
    System(
        "hash_gumbel",
        "hash-seeded Gumbel token watermark",
        ("mark", "generate", "find"),
        target="vestige.watermark.text_baselines:HashGumbel",
        commands=(
            Command(
                "vestige make --method hash_gumbel --model lm --prompt 'The old lighthouse' -k kit.key -o "
                "out/hash_gumbel.txt",
                "a folder of a causal language model and a beginning",
                "the text continued by marked words",
            ),
            Command(
                "vestige mark letter.txt --method hash_gumbel --model lm -k kit.key -o out/hash_gumbel-continued.txt",
                "a text and a folder of a causal language model",
                "the text continued by marked words",
            ),
            Command(
                "vestige read out/hash_gumbel.txt --method hash_gumbel --model lm -k kit.key",
                "a text and the folder of the model that wrote it",
                "whether it was written with that key, with a p-value",
            ),
            Command(
                "vestige find out/hash_gumbel.txt --only hash_gumbel --model lm -k kit.key",
                "a text and the folder of the model that wrote it",
                "the same as an examination",
            ),
        ),
        subject="text",
        kind="baseline",
    ),
    System(
        "stable_signature",
        "Stable Signature: a decoder fine-tuned for one message",
        ("mark", "generate"),
        title="The Stable Signature: Rooting Watermarks in Latent Diffusion Models",
        venue="ICCV 2023",
        target="vestige.watermark.stable_signature:StableSignature",
        kind="baseline",
        commands=(
            Command(
                "vestige mark vae --method stable_signature -k kit.key -o out/signature",
                "a diffusers folder (pipeline or autoencoder); a folder of pictures to tune on, if wanted",
                "a copy whose decoder writes the key's message into every picture",
                quick="--set steps=2",
            ),
            Command(
                "vestige make small.png --method stable_signature --model out/signature -o out/signature.png",
                "a picture and the copy",
                "the picture drawn by the copy's decoder",
            ),
        ),
    ),
)
