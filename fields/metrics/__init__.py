"""How close. See README.md here."""
