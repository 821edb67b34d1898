"""Models that are fitted on features, and their colours."""
