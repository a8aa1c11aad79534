"""Reading MLPerf logs and calling the official checkers on them."""
