"""What the service remembers: PostgreSQL rows and artifacts. No torch."""
