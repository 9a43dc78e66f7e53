"""Stands in for the Bigpicture archive in development and tests; never what production runs.

The mock dataset as datasets of the archive.
"""

from __future__ import annotations

from dev import dataset

# As the visas of dev/lslogin's users name them, and the parts of the mock dataset that they get.
MOCK = {"aa-Dataset-demo01-slides": dataset.SKIN, "aa-Dataset-demo02-biopsies": dataset.LANDMARKS}
