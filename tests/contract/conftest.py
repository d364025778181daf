"""Contract tests that wait for a later issue are skipped, and say what they wait for."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        waiting = item.get_closest_marker("waits_for")
        if waiting is not None:
            item.add_marker(pytest.mark.skip(reason=f"waits for {waiting.args[0]}"))
