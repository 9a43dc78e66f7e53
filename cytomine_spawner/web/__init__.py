"""The service's pages and its REST API."""
