"""Publishing. See README.md here."""
