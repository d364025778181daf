"""Write into the docs what the compiler says: `python docs/build.py`.

In:  pages with marked blocks.  Out: the same pages; between the two marks of a block stands what its function in BLOCKS
returns now.

    <!-- built: softmax traced -->        the name of a block, as in BLOCKS
    <!-- end -->

docs/performance.md and docs/errors.md are written whole. tests/test_docs.py holds every page equal to what this file would write.
Everything is compiled for cpu:x86-64-v3, so that the text is the same on any machine.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import re
import sys
from collections.abc import Callable, Collection
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

import kdsl as kd  # noqa: E402
from bench.report import report  # noqa: E402
from examples import race  # noqa: E402
from kdsl.inspection.tolerance import EPS  # noqa: E402

TARGET = "cpu:x86-64-v3"
MARK = re.compile(r"(<!-- built: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


@kd.kernel(target=TARGET)
def softmax(x):
    e = kd.exp(x - kd.max(x, axis=-1, keepdims=True))
    return e / kd.sum(e, axis=-1, keepdims=True)


X = kd.f32[4096, 1024]


# --- the tour ---------------------------------------------------------------------------------------------------------
def stage(name: str) -> Callable[[], str]:
    """One stage of softmax."""
    return lambda: fenced(softmax.stages(X)[name])


def derived(name: str) -> Callable[[], str]:
    """One stage of softmax's gradient."""
    return lambda: fenced(softmax.vjp.stages(X, X)[name])


def first_loop(text: str) -> str:
    """The first innermost loop of LLVM text or assembly: from a label to the jump that goes back to it."""
    lines = text.splitlines()
    start = end = 0
    for i, line in enumerate(lines):
        label = re.match(r"(\.?\w+):", line)
        if label:
            start, name = i, label.group(1)
        elif start and re.match(rf"\s+(br|j\w+)\s.*{re.escape(name)}\b", line):
            end = i + 1
            break
    return "\n".join(lines[start:end])


def explained() -> str:
    """What `explain` prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        softmax.explain(X)
    return printed.getvalue()


def llvm_version() -> str:
    """The version that the assembly in the tour was made with."""
    from llvmlite import binding

    return "LLVM " + str(binding.llvm_version_info[0])


# --- the other pages --------------------------------------------------------------------------------------------------
def names() -> str:
    """Every public name with the first sentence of its docstring, by the file that defines it."""
    families: dict[str, list[str]] = {}
    constants = []
    for name in kd.__all__:
        found = getattr(kd, name)
        module = inspect.getmodule(found) if callable(found) else found if inspect.ismodule(found) else None
        if isinstance(found, kd.as_dtype("f32").__class__) or module is None:
            constants.append(f"`{name}`")
            continue
        families.setdefault(module.__name__, []).append(f"* `{name}{signature(found)}`: {summary(found)}")
    for name, found in vars(kd.random).items():
        if inspect.isfunction(found) and found.__module__ == "kdsl.language.random" and not name.startswith("_"):
            families["kdsl.language.random"].append(f"* `random.{name}{signature(found)}`: {summary(found)}")
    parts = [f"### {module}\n\n" + "\n".join(rows) for module, rows in sorted(families.items())]
    return "\n\n".join([*parts, "### types and constants\n\n" + ", ".join(constants)])


def signature(found: object) -> str:
    """A function's parameters without their types."""
    if not inspect.isfunction(found):
        return ""
    given = inspect.signature(found)
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in given.parameters.values()]
    return str(given.replace(parameters=plain, return_annotation=inspect.Signature.empty)).replace("(/", "(")


def summary(found: object) -> str:
    """The first sentence of a docstring."""
    text = " ".join((inspect.getdoc(found) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.;:]) Example", text)[0].rstrip(";:")


TANH = [  # (file, what its row looks like)
    ("kdsl/ir/ops.py", r"^    TANH = "),
    ("kdsl/ir/meaning_elementwise.py", r"^    Op\.TANH: "),
    ("kdsl/ir/verify.py", r"Op\.TANH, "),
    ("kdsl/transforms/cost.py", r"Op\.TANH: "),
    ("kdsl/transforms/derivatives.py", r"^    Op\.TANH: "),
    ("kdsl/codegen/llvm/exponentials.py", r"^def tanh\("),
    ("kdsl/codegen/llvm/functions.py", r"exponentials\.tanh, "),
    ("kdsl/language/exponential.py", r"^def tanh\("),
    ("kdsl/__init__.py", r'^    "tanh",'),
    ("tests/ir/test_meaning.py", r"Op\.TANH: "),
    ("tests/codegen/llvm/test_functions.py", r'^    "tanh": '),
    ("tests/language/test_elementwise.py", r'"tanh": '),
]


def rows_of_tanh() -> str:
    """The line of each file that tanh needs."""
    parts = []
    for file, pattern in TANH:
        found = [line for line in (ROOT / file).read_text(encoding="utf-8").splitlines() if re.search(pattern, line)]
        if len(found) != 1:
            raise LookupError(f"{file}: {len(found)} lines look like {pattern}; docs/build.py expects one")
        parts.append(f"# {file}\n{found[0]}")
    return fenced("\n\n".join(parts), "python")


def errors() -> str:
    """Every golden message, by class."""
    classes: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests/golden/errors").glob("*.txt")):
        text = path.read_text(encoding="utf-8").rstrip("\n")
        title = path.stem.replace("_", " ")
        classes.setdefault(text.split("(")[0], []).append(f"### {title}\n\n{fenced(text)}")
    head = inspect.cleandoc(
        """
        # Mistakes and what kdsl answers

        Written by `python docs/build.py` from tests/golden/errors/; the mistakes themselves are in tests/errors/mistakes.py.
        A message has four parts: what is wrong; where, with the line and a caret; the facts that clash and where each came
        from; a way out where one is sure. Behind a class stands the builtin that it is derived from: `except ValueError`
        works where it would with NumPy.
        """
    )
    parts = [f"## {name}\n\n" + "\n\n".join(found) for name, found in sorted(classes.items())]
    return "\n\n".join([head, *parts]) + "\n"


def tolerances() -> str:
    """The bound by dtype and number of terms, relative to the size of the result."""
    terms = (1, 64, 1024, 16384)
    lines = ["| dtype | eps | " + " | ".join(f"n = {n}" for n in terms) + " |", "|---" * (len(terms) + 2) + "|"]
    for name, eps in EPS.items():
        lines.append(f"| {name} | {eps:.2g} | " + " | ".join(f"{eps * (16 + 4 * n**0.5):.2g}" for n in terms) + " |")
    return "\n".join(lines)


def fenced(text: str, language: str = "text") -> str:
    return f"```{language}\n{text.strip(chr(10))}\n```"


BLOCKS: dict[str, Callable[[], str]] = {
    **{
        f"softmax {name}": stage(name)
        for name in ("traced", "simplified", "expanded", "grouped", "lowered", "scheduled")
    },
    "softmax source": lambda: fenced(first_loop(softmax.stages(X)["source"]), "llvm"),
    "softmax assembly": lambda: fenced(first_loop(softmax.stages(X)["assembly"]), "asm"),
    "softmax explained": lambda: fenced(explained()),
    "softmax derived": derived("derived"),
    "softmax derived scheduled": derived("scheduled"),
    "stages": lambda: ", ".join(f"`{name}`" for name in softmax.vjp.stages(X, X)) + "\n",
    "llvm version": lambda: f"(made with {llvm_version()})\n",
    "public names": names,
    "rows of tanh": rows_of_tanh,
    "tolerances": tolerances,
    "race": lambda: fenced(race.mistake(race.BROKEN)),
    "race code": lambda: fenced(inspect.cleandoc(race.BROKEN), "asm"),
    "conflicts": lambda: fenced(f"stride 1\n{race.counted(1)}\n\nstride 32\n{race.counted(32)}"),
}
WHOLE: dict[str, Callable[[], str]] = {"errors.md": errors, "performance.md": report}


def built(text: str, keep: Collection[str] = ()) -> str:
    """A page with its blocks written anew, but for those named in `keep`."""

    def block(found: re.Match[str]) -> str:
        return found[0] if found[2] in keep else f"{found[1]}{BLOCKS[found[2]]().rstrip(chr(10))}\n{found[3]}"

    return MARK.sub(block, text)


def pages() -> list[Path]:
    """README and every page that is not a record of a decision."""
    return [ROOT / "README.md", *sorted(p for p in DOCS.glob("*.md") if p.name not in WHOLE)]


if __name__ == "__main__":
    for page in pages():
        page.write_text(built(page.read_text(encoding="utf-8")), encoding="utf-8")
    for name, whole in WHOLE.items():
        (DOCS / name).write_text(whole(), encoding="utf-8")
