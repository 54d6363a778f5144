"""Measurements, side by side with a limit, in one run: `make bench`."""
