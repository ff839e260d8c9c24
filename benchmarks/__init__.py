"""Throughput of the ops beside what PyTorch users have: `pytest --benchmark`."""
