"""Replay and simulated markets: what an analyst tunes with before touching the shop."""
