"""Four limits for mydocker, one of each kind."""
