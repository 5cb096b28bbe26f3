"""Picture files and masks."""
