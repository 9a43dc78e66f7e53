"""Starts, watches, hibernates and removes Cytomine stacks."""
