"""Used by several test files."""
