"""The miniature world: coloured shapes, an exact checker, real diffusers generators and transformers jurors."""
