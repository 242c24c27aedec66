"""From answers of jurors to labels, and what the jurors are worth."""
