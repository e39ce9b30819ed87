"""Every charge, in balanced postings; knows nothing of ads but their price."""
