"""thinwire's methods as a Flower app."""
