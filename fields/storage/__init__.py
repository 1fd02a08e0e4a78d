"""Rows and their files. See README.md here."""
