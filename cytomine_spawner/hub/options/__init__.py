"""What may be chosen at a start, by the form and by the REST API."""
