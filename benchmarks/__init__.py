"""Speed of the ops and of whole training steps, compared with PyTorch: `pytest --benchmark`."""
