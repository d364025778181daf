"""Imports go downwards only: the table of design.md, section 2, held by reading every file's imports (lazy ones too)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LEAVES = {"errors", "dtypes", "target"}
MAY_IMPORT = {  # in reading order
    "ir": LEAVES,
    "language": LEAVES | {"ir"},
    "frontend": LEAVES | {"ir", "language"},
    "transforms": LEAVES | {"ir"},
    "schedule": LEAVES | {"ir"},
    "codegen": LEAVES | {"ir"},
    "runtime": LEAVES,
    "emulator": LEAVES,
    "interop": LEAVES | {"runtime"},
    "inspection": LEAVES | {"ir"},
    "kept": LEAVES | {"ir", "runtime"},
    "emulated": LEAVES | {"ir", "runtime", "emulator"},
    "gpu_code": LEAVES | {"ir", "codegen", "kept"},
    "gpu_program": LEAVES | {"ir", "runtime", "kept"},
    "gpu_stages": LEAVES
    | {"ir", "schedule", "codegen", "runtime", "kept", "emulated", "gpu_code", "gpu_program"},
    "choices": LEAVES,
    "tuned": LEAVES | {"ir", "kept", "choices"},
    "record": LEAVES | {"ir", "runtime"},
    "pipeline": LEAVES | {"ir", "frontend", "transforms", "schedule", "codegen", "runtime", "inspection", "kept"}
    | {"tuned", "gpu_stages", "record"},
    "specialisation": LEAVES | {"ir", "frontend", "pipeline", "runtime", "interop"},
    "gradients": LEAVES | {"ir", "language", "frontend", "pipeline", "runtime", "interop", "inspection", "specialisation"}
    | {"tuned", "tuner"},
    "kernel": LEAVES | {"ir", "language", "frontend", "pipeline", "runtime", "interop", "inspection", "specialisation"}
    | {"gradients", "tuned", "tuner"},
    "tuner": LEAVES | {"choices", "tuned", "frontend", "pipeline", "runtime", "specialisation", "gradients", "kernel"},
    "testing": LEAVES | {"gpu_code", "gradients", "kernel"},
    **{leaf: set() for leaf in LEAVES},
}
FILES = sorted((ROOT / "kdsl").rglob("*.py"))


def imported(path: Path) -> set[tuple[str, int]]:
    """(module, line) of everything a file imports, absolute names."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {(alias.name, node.lineno) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(path.relative_to(ROOT).parts[: -node.level]) + ("." + base if base else "")
            found |= {(f"{base}.{alias.name}", node.lineno) for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_downwards(path):
    parts = path.relative_to(ROOT / "kdsl").with_suffix("").parts
    here = parts[0]
    if here == "__init__":
        return
    assert here in MAY_IMPORT, f"{path}: no row in the table of layers for {here}"
    for module, line in imported(path):
        words = module.split(".")
        if words[0] == "nn":
            pytest.fail(f"{path}:{line}: kdsl may not import nn")
        if words[0] == "kdsl" and len(words) > 1 and words[1] != here:
            assert words[1] in MAY_IMPORT[here], f"{path}:{line}: {here} may not import {words[1]}"


@pytest.mark.parametrize("path", sorted((ROOT / "nn").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT)))
def test_nn_uses_public_names_only(path):
    import kdsl

    for module, line in imported(path):
        if module.split(".")[0] == "kdsl":
            assert module == "kdsl", f"{path}:{line}: nn imports kdsl and nothing below it"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "kd":
            assert node.attr in kdsl.__all__, f"{path}:{node.lineno}: kd.{node.attr} is not a public name"
