"""File formats of other tools: LoRAs, embeddings and Custom Diffusion weights, written and read."""
