"""Stand-in for Cytomine: a small server with its API, ports, variables and probes, for machines without its images."""
