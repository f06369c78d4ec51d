"""What projects use, a project and a day."""
