"""What a stack consists of: settings, manifests and limits, without any input or output."""
