"""What a label is: contracts, class maps, label maps and the files that carry them."""
