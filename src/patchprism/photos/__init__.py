"""Which files are photos, any photo file to RGB, and framing."""
