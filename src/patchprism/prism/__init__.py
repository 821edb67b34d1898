"""Models that are fitted on features, and the colours that they give."""
