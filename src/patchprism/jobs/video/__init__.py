"""Videos: frames in the colours of one prism, in bounded memory. Needs the extra ``video`` (PyAV)."""
