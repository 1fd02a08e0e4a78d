"""What differs between pictures and shapes. See README.md here."""
