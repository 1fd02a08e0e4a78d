"""Other projects' files. See README.md here."""
