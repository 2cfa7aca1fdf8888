"""Datasets: what is learned, and its pictures."""
