"""The demo: this checkout's chart on a cluster, with a stand-in for LS Login."""
