"""Labels in, better labels out."""
