"""The functions `visualize`, `extract` and `render_video`, and the class `Visualization`."""
