"""Tokens: how a prompt that names the concept becomes text conditioning."""
