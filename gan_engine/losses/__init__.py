"""What the networks minimise: a table of adversarial losses, and the objectives that apply them to G and D."""
