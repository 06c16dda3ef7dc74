"""What the README and the guide show can be run, as it stands there."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from conftest import ROOT

PAGES = ("README.md", "docs/guide.md")


@pytest.mark.parametrize("page", PAGES)
def test_examples_run(page: str, run_python: Callable[..., Any]) -> None:
    examples = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE)
    assert examples
    # One after another: later ones use what earlier ones made.
    run_python("\n".join(examples))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    path = ROOT / page
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text())
    assert links
    assert [link for link in links if not (path.parent / link).exists()] == []
