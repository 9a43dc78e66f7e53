"""What a laptop or CI needs in place of the outside world; never what production runs."""
