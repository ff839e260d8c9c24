"""Weights of other programs: read without running their code, made into checkpoints of ours, and written back."""
