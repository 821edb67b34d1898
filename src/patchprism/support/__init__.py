"""Helpers that every part may use: files, folders, threads, wording, checks. Nothing here depends on photos."""
