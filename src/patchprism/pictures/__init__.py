"""From colours to pixels: upsampling, figures, names of outputs, and writing."""
