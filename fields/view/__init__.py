"""Pictures of fields. See README.md here."""
