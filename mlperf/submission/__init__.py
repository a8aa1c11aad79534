"""Creating and checking results and submission packages."""
