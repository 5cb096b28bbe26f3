"""Steps that several methods share: corrections, reverse chains, particles, batches."""
