"""Fields by the thousand. See README.md here."""
