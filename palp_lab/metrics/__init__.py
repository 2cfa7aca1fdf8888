"""Metrics: pure functions of embeddings and readings, and the protocols that bundle them."""
