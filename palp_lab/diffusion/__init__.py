"""Diffusion mathematics. Imports torch and nothing else of ours but the names in `types`."""
