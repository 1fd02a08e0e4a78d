"""How commands behave. See README.md here."""
