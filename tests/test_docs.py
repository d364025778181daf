"""The docs are true: built text is what the compiler says today, Python blocks run, links lead somewhere, names in
tables exist.
"""

from __future__ import annotations

import re

import pytest

from docs import build

PAGES = build.pages()
TEXTS = {
    str(p.relative_to(build.ROOT)): p.read_text(encoding="utf-8") for p in sorted([*PAGES, *build.DOCS.rglob("*.md")])
}
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_built_text_is_what_the_compiler_says(page):
    text = page.read_text(encoding="utf-8")
    assembly_of_another_llvm = "(made with LLVM" in text and build.llvm_version() not in text
    keep = ("softmax assembly", "llvm version") if assembly_of_another_llvm else ()
    assert text == build.built(text, keep), "python docs/build.py writes it anew"


@pytest.mark.parametrize("name", build.WHOLE)
def test_pages_made_from_other_files(name):
    assert (build.DOCS / name).read_text(encoding="utf-8") == build.WHOLE[name](), (
        "python docs/build.py writes it anew"
    )


@pytest.mark.parametrize("page", [name for name, text in TEXTS.items() if BLOCK.search(build.MARK.sub("", text))])
def test_python_blocks_run(page):
    """The blocks of a page run one after another in one namespace."""
    scope: dict[str, object] = {}
    for source in BLOCK.findall(build.MARK.sub("", TEXTS[page])):
        exec(compile(source, page, "exec"), scope)


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page):
    folder = (build.ROOT / page).parent
    for link in re.findall(r"\]\(([^)#\s]+)(?:#\S*)?\)", TEXTS[page]):
        if "://" not in link:
            assert (folder / link).exists(), f"{page}: {link}"


@pytest.mark.parametrize("page", TEXTS)
def test_paths_exist(page):
    """Paths of files that a page mentions."""
    for path in re.findall(
        r"\b(?:kdsl|nn|tests|bench|docs|examples)/[\w/]+\.(?:py|md|loops)\b", build.MARK.sub("", TEXTS[page])
    ):
        assert (build.ROOT / path).exists(), f"{page}: {path}"


def test_the_table_of_stages_has_every_stage_and_function():
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (\S+) \|", TEXTS["docs/pipeline.md"], re.MULTILINE)
    stages = list(build.softmax.vjp.stages(build.X, build.X))
    assert [stage for stage, _, _ in rows[: len(stages)]] == stages
    assert [stage for stage, _, _ in rows[len(stages) :]] == ["scheduled", "source", "assembly"]  # a GPU's
    for _, function, file in rows:
        assert f"def {function}(" in (build.ROOT / file).read_text(encoding="utf-8"), f"{file}: {function}"


def test_every_page_can_be_found_from_readme():
    linked = set(re.findall(r"docs/([\w/]+\.md)", TEXTS["README.md"]))
    assert {p.name for p in build.DOCS.glob("*.md")} <= linked
