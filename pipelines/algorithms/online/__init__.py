"""Learning from rollouts of the policy itself: which steps spread, which candidates go on, and the losses."""
