"""What fields are fitted to. See README.md here."""
