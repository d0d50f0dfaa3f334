"""The architecture, enforced: layers import downward only and wings never import each other."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vestige
from vestige.core.catalogue import WINGS

ROOT = Path(vestige.__file__).parent
RANK = {"core": 0, "nn": 1, "data": 1, "metrics": 1, "engines": 2, **dict.fromkeys(WINGS, 3), "bench": 4, "recipes": 5, "claims": 6, "app": 7}
FILES = sorted(p for p in ROOT.rglob("*.py") if p.parent != ROOT)


def imported_parts(path: Path) -> set[str]:
    """First component below ``vestige`` of everything a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
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


def test_optional_packages_are_not_imported_at_module_level():
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {n.split(".")[0] for n in names} & {"torchvision", "timm", "ray", "skimage"}, path


def test_light_commands_do_not_load_torch():
    code = (
        "import sys; from vestige.app import cli, finding, marking; from vestige.core.panel import default_panel; "
        "default_panel(); assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_core_is_light():
    code = (
        "import sys, vestige.core.subjects, vestige.core.catalogue, vestige.core.panel; "
        "heavy = {'torch', 'cv2', 'scipy', 'pydantic', 'pyarrow', 'sklearn', 'PIL'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
