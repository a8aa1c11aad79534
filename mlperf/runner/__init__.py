"""What a run is: from settings to data, model, engine and listeners; training, evaluation, and the Python API."""
