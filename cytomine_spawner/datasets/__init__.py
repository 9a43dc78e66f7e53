"""The program of the Job that puts datasets into a stack."""
