"""Scorers: what gives one picture or clip a number for each of its dimensions."""
