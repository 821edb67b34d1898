"""Photos to patch tokens, in memory and on disk."""
