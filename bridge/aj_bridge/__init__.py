"""What an operator runs: the bridge that turns stored tasks into calls to handlers."""
