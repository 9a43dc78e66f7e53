"""``./test``: every ring of tests, with all that they need."""
