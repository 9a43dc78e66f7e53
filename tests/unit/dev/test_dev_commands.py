"""The commands that the documents name, as somebody types them whose Python has none of the project's packages."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from dev.cache import ROOT

PAGES = [
    *(ROOT / "docs").rglob("*.md"),
    *ROOT.glob("*.md"),
    *(ROOT / "dev").rglob("README.md"),
    *(ROOT / "benchmarks").glob("*.py"),
]
NAMED = {
    name for page in PAGES for name in re.findall(r"python3 -m ((?:dev|benchmarks)\.\w+)", page.read_text())
}


@pytest.mark.parametrize("module", sorted(NAMED - {"dev.standin"}))  # its page says what it needs
def test_a_command_of_the_documents_starts_with_a_python_that_has_no_packages(module):
    answer = subprocess.run(
        [sys.executable, "-S", "-m", module, "--help"], capture_output=True, text=True, cwd=ROOT, timeout=120
    )
    assert answer.returncode == 0, answer.stderr[-2000:]
    assert "usage: " in answer.stdout
