"""Arrays to pictures, pictures to viewers."""
