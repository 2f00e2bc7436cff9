"""Labels in, a choice of samples out."""
