"""Files the benchmark reads: captions, tokens, latents, and checkpoints verified against a manifest."""
