"""Ordinary models, small, as their libraries save them."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import model_makers as make
from zoo_makers import Writer, as_bytes, folder_, joblib_, json_, npy_, npz_, safetensors_, scripted_, torch_

TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] | trim }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def _estimators() -> dict[str, Any]:
    from sklearn import cluster, ensemble, linear_model, naive_bayes, neighbors, neural_network, svm, tree
    from sklearn.decomposition import PCA
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    features, labels = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    models = {
        "logistic": linear_model.LogisticRegression(),
        "ridge": linear_model.Ridge(),
        "sgd": linear_model.SGDClassifier(),
        "svc": svm.SVC(probability=False),
        "tree": tree.DecisionTreeClassifier(),
        "forest": ensemble.RandomForestClassifier(3),
        "boosting": ensemble.GradientBoostingClassifier(n_estimators=3),
        "histogram": ensemble.HistGradientBoostingClassifier(max_iter=3),
        "neighbours": neighbors.KNeighborsClassifier(algorithm="kd_tree"),
        "bayes": naive_bayes.GaussianNB(),
        "perceptron": neural_network.MLPClassifier((4,), max_iter=3),
        "means": cluster.KMeans(2, n_init=1),
        "pca": PCA(2),
        "process": GaussianProcessRegressor(),
        "pipeline": make_pipeline(StandardScaler(), linear_model.Lasso()),
        "search": GridSearchCV(linear_model.Ridge(), {"alpha": [0.1, 1.0]}, cv=2),
        "one_hot": OneHotEncoder(),
    }
    return {name: model.fit(features, labels) for name, model in models.items()}


def ordinary() -> dict[str, Writer]:
    """{name: writer} of ordinary models."""
    import warnings

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))
    attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    optimiser = torch.optim.AdamW(net.parameters())
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    state, array = net.state_dict(), np.arange(1000.0)
    files: dict[str, Writer] = {
        "state.pt": as_bytes(lambda: torch_(state)),
        "state_legacy.pth": as_bytes(lambda: torch_(state, _use_new_zipfile_serialization=False)),
        "attention.bin": as_bytes(lambda: torch_(attention.state_dict())),
        "half.pt": as_bytes(
            lambda: torch_(
                {"a": torch.ones(3).half(), "b": torch.ones(3).bfloat16(), "c": torch.ones(3, dtype=torch.int8)}
            )
        ),
        "parameter.pt": as_bytes(lambda: torch_(nn.Parameter(torch.ones(3)))),
        "checkpoint.ckpt": as_bytes(
            lambda: torch_(
                {
                    "epoch": 3,
                    "model": state,
                    "optimizer": optimiser.state_dict(),
                    "lr": 1e-3,
                    "rng": torch.get_rng_state(),
                }
            )
        ),
        "generator.pt": as_bytes(lambda: torch_({"w": torch.ones(2), "numpy": np.random.default_rng(0)})),
        "sparse.pt": as_bytes(lambda: torch_({"s": torch.eye(3).to_sparse()})),
        "list.pt": as_bytes(lambda: torch_([torch.ones(2), "name", 1.5, None, {"a": (1, 2)}])),
        "device.pt": as_bytes(
            lambda: torch_({"size": torch.Size([1, 2]), "type": torch.float16, "d": torch.device("cpu")})
        ),
        "namespace.ckpt": as_bytes(lambda: torch_({"args": __import__("argparse").Namespace(lr=1.0), "state": state})),
        "script.pt": as_bytes(lambda: scripted_(net)),
        "script_attention.pt": as_bytes(lambda: scripted_(attention)),
        "trace.pt": as_bytes(lambda: scripted_(net[:3], torch.ones(1, 3, 8, 8))),
        "weights.safetensors": as_bytes(lambda: safetensors_(**{k.replace(".", "_"): v for k, v in state.items()})),
        "half.safetensors": as_bytes(lambda: safetensors_(a=torch.ones(3).bfloat16(), b=torch.zeros(0))),
        "array.npy": as_bytes(lambda: npy_(array)),
        "structured.npy": as_bytes(lambda: npy_(np.zeros(3, [("Open", "<i4"), ("b", "U3")]))),
        "texts.npy": as_bytes(lambda: npy_(np.array(["a", "bc"]))),
        "arrays.npz": as_bytes(lambda: npz_(a=array, b=np.ones(2))),
        "packed.npz": as_bytes(lambda: npz_(True, a=array)),
        "objects.npy": as_bytes(lambda: npy_(np.array([1, "x", None], object))),
        "arrays.joblib": as_bytes(lambda: joblib_({"a": array, "b": np.array(["x"]), "c": np.ones(3, np.float16)})),
        "generator.pkl": as_bytes(pickle.dumps([np.random.RandomState(0), np.random.default_rng(1)])),
        "data.pkl": as_bytes(pickle.dumps({"a": [1.5, "x", {1, 2}], "b": b"bytes", "c": (True, None)})),
        "array.pkl": as_bytes(pickle.dumps({"a": array, "b": np.float32(1), "m": np.ma.masked_array([1.0], [True])})),
        "dates.pkl": as_bytes(
            pickle.dumps([__import__("datetime").datetime(2024, 1, 2), __import__("decimal").Decimal("1.5")])
        ),
        "path.pkl": as_bytes(pickle.dumps(Path("x"))),
        "gzip.pkl.gz": as_bytes(gzip.compress(pickle.dumps([1, 2]))),
        "dense.keras": as_bytes(lambda: make.keras(make.sequential(make.DENSE))),
        "deep.keras": as_bytes(
            lambda: make.keras(
                make.sequential(
                    make.layer("Conv2D"),
                    make.layer("BatchNormalization"),
                    make.layer("MaxPooling2D"),
                    make.layer("Dropout"),
                    make.DENSE,
                )
            )
        ),
        "lookup.keras": as_bytes(
            lambda: make.keras(make.sequential(make.layer("StringLookup", {"vocabulary": ["a"]})))
        ),
        "compiled.keras": as_bytes(
            lambda: make.keras(
                make.sequential(make.DENSE)
                | {
                    "compile_config": {
                        "optimizer": {
                            "module": "keras.optimizers",
                            "class_name": "Adam",
                            "config": {},
                            "registered_name": None,
                        },
                        "loss": "mse",
                    }
                }
            )
        ),
        "model.h5": as_bytes(
            lambda: make.hdf5({"model_config": json_(make.sequential(make.DENSE)), "backend": b"tensorflow"})
        ),
        "legacy.h5": as_bytes(
            lambda: make.hdf5(
                {
                    "model_config": json_(
                        {
                            "class_name": "Sequential",
                            "config": {
                                "layers": [{"class_name": "Dense", "config": {"units": 2, "activation": "relu"}}]
                            },
                        }
                    )
                }
            )
        ),
        "only.weights.h5": as_bytes(lambda: make.hdf5({"layer_names": b"dense"})),
        "packed.hdf5": as_bytes(lambda: make.hdf5(filters=[1, 2])),
        "keras.json": as_bytes(json_(make.sequential(make.DENSE))),
        "small.onnx": as_bytes(
            make.onnx([make.onnx_node("Gemm"), make.onnx_node("Relu")], [make.onnx_tensor("w", (2, 2))])
        ),
        "trees.onnx": as_bytes(
            make.onnx([make.onnx_node("TreeEnsembleClassifier", "ai.onnx.ml"), make.onnx_node("ZipMap", "ai.onnx.ml")])
        ),
        "runtime.onnx": as_bytes(
            make.onnx([make.onnx_node("FusedMatMul", "com.microsoft"), make.onnx_node("Softmax")])
        ),
        "branches.onnx": as_bytes(
            make.onnx(
                [
                    make.onnx_node(
                        "If",
                        attributes=[
                            make.field(1, "then_branch") + make.field(6, make.field(1, make.onnx_node("Relu")))
                        ],
                    )
                ]
            )
        ),
        "small.gguf": as_bytes(
            make.gguf({"general.architecture": "llama", "tokenizer.ggml.tokens": ["a", "b"]}, {"w": (4, 8)})
        ),
        "chat.gguf": as_bytes(make.gguf({"tokenizer.chat_template": TEMPLATE, "general.alignment": 32}, {"w": (8,)})),
        "old.gguf": as_bytes(make.gguf({"general.name": "x"}, {"w": (3,), "v": (5, 5)}, version=2)),
        "frozen.pb": as_bytes(make.graph_def(["Placeholder", "Const", "MatMul", "BiasAdd", "Relu"])),
        "saved_model.pb": as_bytes(make.saved_model(["MatMul"], {"save": ["SaveV2", "RestoreV2"]})),
        "model.pmml": as_bytes(b'<PMML xmlns="http://www.dmg.org/PMML-4_4" version="4.4"><Header/><TreeModel/></PMML>'),
        "model.skops": as_bytes(
            make.archive(
                (
                    "schema.json",
                    json_(
                        {
                            "__class__": "LogisticRegression",
                            "__module__": "sklearn.linear_model._logistic",
                            "__loader__": "ObjectNode",
                            "content": {},
                        }
                    ),
                )
            )
        ),
        "xgboost.json": as_bytes(b'{"learner": {"gradient_booster": {"model": {}}}, "version": [2, 0, 0]}'),
        "folder_transformers": folder_(
            **{
                "config.json": json_({"model_type": "bert", "architectures": ["BertModel"]}),
                "vocab.txt": "[PAD]\n[UNK]\n",
                "tokenizer_config.json": json_({"chat_template": TEMPLATE, "tokenizer_class": "BertTokenizer"}),
                "model.safetensors": safetensors_(w=torch.ones(3)),
                "README.md": "# A model\n",
                "merges.txt": "a b\n",
            }
        ),
        "folder_sharded": folder_(
            **{
                "config.json": "{}",
                "model-00001-of-00002.safetensors": safetensors_(a=torch.ones(3)),
                "model-00002-of-00002.safetensors": safetensors_(b=torch.ones(3)),
                "model.safetensors.index.json": json_(
                    {
                        "metadata": {},
                        "weight_map": {
                            "a": "model-00001-of-00002.safetensors",
                            "b": "model-00002-of-00002.safetensors",
                        },
                    }
                ),
            }
        ),
        "folder_bin": folder_(
            **{"config.json": "{}", "pytorch_model.bin": torch_({"w": torch.ones(3)}), "training_args.json": "{}"}
        ),
        "folder_diffusers": folder_(
            **{
                "model_index.json": json_({"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"]}),
                "unet/config.json": "{}",
                "unet/diffusion_pytorch_model.safetensors": safetensors_(w=torch.ones(3)),
                "scheduler/scheduler_config.json": "{}",
            }
        ),
        "folder_adapter": folder_(
            **{
                "adapter_config.json": json_({"peft_type": "LORA", "r": 8, "auto_mapping": None}),
                "adapter_model.safetensors": safetensors_(a=torch.ones(2)),
            }
        ),
        "folder_sentences": folder_(
            **{
                "config.json": "{}",
                "model.safetensors": safetensors_(w=torch.ones(2)),
                "modules.json": json_(
                    [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
                ),
            }
        ),
        "folder_saved_model": folder_(
            **{"saved_model.pb": make.saved_model(["MatMul"]), "variables/variables.index": b"\0\1"}
        ),
        "folder_onnx": folder_(
            **{
                "config.json": "{}",
                "model.onnx": make.onnx([make.onnx_node("Relu")], [make.onnx_tensor("w", location="model.onnx_data")]),
                "model.onnx_data": bytes(8),
            }
        ),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for n, (name, model) in enumerate(_estimators().items()):
            files[f"sklearn_{name}.pkl"] = as_bytes(pickle.dumps(model))
            files[f"sklearn_{name}.joblib"] = as_bytes(
                joblib_(model, (0, 3, ("gzip", 3), ("xz", 3), ("bz2", 3))[n % 5])
            )
    return files
