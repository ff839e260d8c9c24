"""The machine, its files and its memory: whatever knows nothing of GANs."""
