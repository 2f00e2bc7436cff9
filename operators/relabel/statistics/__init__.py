"""What has to be known of a whole data set before one row of it can be judged: small states that merge."""
