"""Sphinx settings; ``sphinx-build -W docs docs/_build``."""

project = "cytomine_spawner"
author = "the cytomine_spawner developers"
copyright = "2026, the cytomine_spawner developers"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "autodoc_traits"]
source_suffix = [".md"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "cytomine_spawner"
autodoc_member_order = "bysource"
