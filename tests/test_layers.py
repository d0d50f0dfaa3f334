"""The architecture, enforced: layers import downward only and wings never import each other."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import vestige
from vestige.core.catalogue import WINGS

ROOT = Path(vestige.__file__).parent
RANK = {
    "core": 0, "nn": 1, "data": 1, "metrics": 1, "engines": 2, **dict.fromkeys(WINGS, 3), "bench": 4, "recipes": 5,
    "claims": 6, "app": 7,
}  # fmt: skip
FILES = sorted(p for p in ROOT.rglob("*.py") if p.parent != ROOT)


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imported_parts(path: Path) -> set[str]:
    """First component below ``vestige`` of everything a file imports, also inside functions."""
    names = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            module = node.module or ""
            names |= {module} if module != "vestige" else {f"vestige.{a.name}" for a in node.names}
    return {n.split(".")[1] for n in names if n.startswith("vestige.")}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downward(path: Path):
    part = path.relative_to(ROOT).parts[0]
    for other in imported_parts(path) - {part}:
        if other not in RANK:
            continue  # a public name of the package
        assert RANK[other] <= RANK[part], f"{part} imports {other}, a layer above it"
        assert not (other in WINGS and part in WINGS), f"wing {part} imports wing {other}"


def _is_typing_block(node: ast.AST) -> bool:
    test = node.test if isinstance(node, ast.If) else None
    return getattr(test, "id", getattr(test, "attr", "")) == "TYPE_CHECKING"


def _run_time(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes below, those in functions too, except what only a type checker reads."""
    for child in node.orelse if _is_typing_block(node) else ast.iter_child_nodes(node):  # type: ignore[attr-defined]
        yield child
        yield from _run_time(child)


def _modules() -> dict[str, Path]:
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = ("vestige", *path.relative_to(ROOT).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules each of which imports all others of its group, directly or by way of others."""
    reach: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        ahead = list(graph[start])
        while ahead:
            at = ahead.pop()
            if at not in seen:
                seen.add(at)
                ahead += graph[at]
        reach[start] = seen
    groups = {frozenset(b for b in reach[a] if a in reach[b]) for a in graph if a in reach[a]}
    return sorted(sorted(group) for group in groups)


def test_no_circle_of_imports_even_inside_functions():
    modules = _modules()
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        used = set()
        for node in _run_time(_tree(path)):
            if isinstance(node, ast.Import):
                used |= {a.name for a in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                submodules = {f"{node.module}.{a.name}" for a in node.names} & set(modules)
                used |= submodules or {node.module}
        graph[name] = used & set(modules) - {name}
    assert not _circles(graph)


def test_circles_are_seen():
    assert _circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]


#: Claims whose ``.fit`` solves for a probe or a projection in closed form or by a solver, which trains no network.
FITS_A_PROBE = {"text_blackbox", "recolor", "laundering", "generated_study", "clipmasterprints"}


def _trains(path: Path) -> set[str]:
    """What in a file trains a network: the loops, optimisers and backward passes that it names."""
    found = set()
    for node in ast.walk(_tree(path)):
        imported = isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torch.optim")
        named = isinstance(node, ast.Attribute) and node.attr == "optim" and getattr(node.value, "id", "") == "torch"
        if imported or named:
            found.add("torch.optim")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found |= {node.func.id} & {"fit", "Trainer", "make_optimizer", "tune", "train", "retrain"}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            found |= {f".{node.func.attr}"} & {".backward", ".Trainer", ".make_optimizer", ".tune", ".retrain"}
            if node.func.attr == "fit" and path.stem not in FITS_A_PROBE:
                found.add(".fit")
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "claims").rglob("*.py")), ids=lambda p: p.stem)
def test_claims_never_train(path: Path):
    """They load finished runs; what has to be trained is a recipe, which can be resumed, logged and judged."""
    assert not _trains(path)


@pytest.mark.parametrize(
    ("code", "trains"),
    [
        ("x.backward()", True),
        ("fit(net)", True),
        ("problem.tune([])", True),
        ("o = torch.optim.Adam(w)", True),
        ("Trainer(n).run()", True),
        ("m.fit(x)", True),
        ("net.train(); net.eval(); context.run('ucf')", False),
    ],
)
def test_training_is_seen(code: str, trains: bool, tmp_path: Path):
    (tmp_path / "claim.py").write_text(code)
    assert bool(_trains(tmp_path / "claim.py")) is trains


def test_optional_packages_are_not_imported_at_module_level():
    for path in FILES:
        for node in _tree(path).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {n.split(".")[0] for n in names} & {"torchvision", "timm", "ray", "skimage"}, path


def test_light_commands_do_not_load_torch():
    code = (
        "import sys; from vestige.app import cli; from vestige.app.verbs import finding, marking; "
        "from vestige.core.panel import default_panel; default_panel(); "
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_core_is_light():
    code = (
        "import sys, vestige.core.subjects, vestige.core.catalogue, vestige.core.panel; "
        "heavy = {'torch', 'cv2', 'scipy', 'pydantic', 'pyarrow', 'sklearn', 'PIL'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
