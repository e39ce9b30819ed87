"""How much a visitor leans towards each product: navigation, profiles, audiences, patterns, models."""
