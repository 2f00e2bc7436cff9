"""Testing: the kit for people who write operators and stores: real servers and faulty stores."""
