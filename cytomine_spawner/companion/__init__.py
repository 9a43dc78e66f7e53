"""The Cytomine side of the spawner: what the options offer, and the stack that a start makes and follows."""
