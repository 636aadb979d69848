"""Search: spaces, trials, and the processes that share them."""
