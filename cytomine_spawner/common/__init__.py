"""What several rooms need that knows nothing of stacks. Imports nothing of the other rooms."""
