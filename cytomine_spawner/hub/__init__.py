"""What runs in the hub: the spawner, its options and the stack beside a notebook."""
