"""Benchmarks: each prints one table and keeps its raw numbers in ``.benchmarks/``, outside of git."""
