"""Models: the only place that knows diffusers and transformers."""
