"""Object stores: the data path and their administration."""
