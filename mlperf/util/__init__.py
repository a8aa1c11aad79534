"""Files, errors, memory, threads and progress: helpers without knowledge of the benchmark."""
