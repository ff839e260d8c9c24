"""Trained generators: load one, draw with it, and search its latents."""
