"""Which organisations there are, and the best of them."""
