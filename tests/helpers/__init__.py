"""What several test files use: local servers, processes."""
