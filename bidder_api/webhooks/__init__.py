"""Webhooks: who is to be told of notices, and telling them over HTTP until they have taken it."""
