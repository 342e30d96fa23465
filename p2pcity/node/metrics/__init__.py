"""What `GET /metrics` shows, read from the node's parts at each scrape."""
