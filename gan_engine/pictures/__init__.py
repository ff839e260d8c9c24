"""Pictures, animations and volumes for people to look at."""
