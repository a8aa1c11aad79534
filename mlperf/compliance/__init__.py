"""Reading MLPerf logs and running the official checkers."""
