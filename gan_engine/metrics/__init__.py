"""Measures of generated images: distances from real images, and the classifier whose features they compare."""
