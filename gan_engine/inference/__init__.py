"""What a trained generator draws: `generator` loads and samples it, `latents` walks, mixes and searches."""
