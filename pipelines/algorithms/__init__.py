"""Pure functions of tensors and arrays: what is computed, free of files, processes and devices."""
