"""Losses: pure functions of one training step. Each draws from its own random stream."""
