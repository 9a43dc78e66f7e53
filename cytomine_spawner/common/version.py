"""The version of the package, for those below whom the package itself is not to be loaded."""

VERSION = "0.1.0"
