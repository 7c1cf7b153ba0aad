"""For those who write plugins: stand-ins, and a whole Elemta in memory."""
