"""Analyses of landed events: pure functions from frame to frame, and inference in plain Python on what they reduce to."""
