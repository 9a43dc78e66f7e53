"""The stack service: it starts, watches, hibernates and removes Cytomine stacks.

The public names are in :mod:`cytomine_spawner.stacks.model`; nothing is imported here, so that the
hub can use the model without loading the operator.
"""
