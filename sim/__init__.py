"""A small world of visitors and bidders on the same engine, to tune against before touching the shop."""
