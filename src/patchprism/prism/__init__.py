"""What is fitted on features, and the colours it gives."""
