"""What every address of the service shares: who asks, cookies, headers, refusals, and the frame of a page."""
