"""The papers' claims put to the test in the miniature world: a study on top of the product."""
