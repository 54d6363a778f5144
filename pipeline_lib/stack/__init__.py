"""The local servers: every store that Lode talks to, for real, on loopback, from jars."""
