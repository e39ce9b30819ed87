"""Fill the slots of one page from the live bids, and price every fill."""
