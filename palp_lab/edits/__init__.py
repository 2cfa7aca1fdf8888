"""Edits: what is trainable inside the network."""
