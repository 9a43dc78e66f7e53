"""Launch a Cytomine stack beside a JupyterHub notebook on Kubernetes."""

__version__ = "0.1.0"
