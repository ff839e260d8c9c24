"""How far generated images are from real ones: distances between features, and the extractor that ships with them."""
