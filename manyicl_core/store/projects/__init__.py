"""Projects, the tenants, and their API keys."""
