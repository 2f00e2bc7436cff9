"""The training side: reading labels back as targets."""
