"""What every room may use: files, folders, threads, wording, checks. It knows nothing of photos."""
