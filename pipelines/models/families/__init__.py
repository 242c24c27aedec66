"""The generators that can be trained: what differs between families of diffusers pipelines, one family a file."""
