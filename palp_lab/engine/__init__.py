"""The training loop: the only package that knows lightning."""
