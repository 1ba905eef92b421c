"""The shared vocabulary: sensors, settings, errors, files, randomness. Knows nothing of archives or models."""
