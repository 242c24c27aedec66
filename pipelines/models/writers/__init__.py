"""Writers: what writes prompts, captions and perturbations."""
