"""Who reaches Cytomine's API, with what rights and keys, and when it was used."""
