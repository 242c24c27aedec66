"""Where the curves and pictures of a training are shown."""
