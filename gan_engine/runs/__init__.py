"""The files that a run leaves in its directory, and how they are read again."""
