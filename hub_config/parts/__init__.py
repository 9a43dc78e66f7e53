"""The parts of the hub's configuration, one topic each: ``configure(c, values)``."""
