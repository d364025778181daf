"""What all tests share: golden texts. `pytest --update-golden` writes them anew; git shows the difference."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kdsl.runtime import cuda_driver

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden texts anew")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is not None and (reason := cuda_driver.missing()) is not None:
        pytest.skip(f"needs a GPU: {reason}")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden("errors/add", text)`: the text equals tests/golden/errors/add.txt."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / f"{name}.txt"
        text = text.rstrip("\n") + "\n"
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            return
        known = path.read_text(encoding="utf-8") if path.exists() else ""
        difference = difflib.unified_diff(
            known.splitlines(), text.splitlines(), str(path), "now", lineterm=""
        )
        assert text == known, "\n".join([*difference, "", "pytest --update-golden accepts this"])

    return check


@pytest.fixture(autouse=True, scope="session")
def _same_machine_for_all() -> None:
    """Tests do not depend on what the environment asks of kdsl."""
    for name in ("KDSL_TRACEBACK", "KDSL_TUNE"):
        os.environ.pop(name, None)


@pytest.fixture(scope="module")
def emulated_gpu():
    """A GPU that is kdsl's emulator, for this module's tests: `kd.asarray(x, device="cuda")` works."""
    pytest.importorskip("numba.cuda")
    if cuda_driver.missing() is None:
        pytest.skip("there is a GPU: tests/gpu run on it")
    from tests.emulated_gpu import installed

    with installed() as driver:
        yield driver
