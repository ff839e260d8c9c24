"""The machine, its files and its memory. Nothing here knows about GANs."""
