"""For tools that still ask for it; all is in pyproject.toml."""

__import__("setuptools").setup()
