"""The middle office: web pages for brands and the retailer's staff, over the same operations as the API."""
