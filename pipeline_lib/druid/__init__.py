"""Druid: what is loaded into it, the proof that it was, and the way back."""
