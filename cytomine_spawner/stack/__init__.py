"""The words of a Cytomine stack, without any input or output. Imports nothing but :mod:`cytomine_spawner.common`."""
