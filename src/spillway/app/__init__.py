"""The composition root: the only place where concrete classes meet, and where the system clock and randomness are made. Floor 8."""
