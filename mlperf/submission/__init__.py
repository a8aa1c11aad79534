"""Results and submission packages: making them, and checking anyone's."""
