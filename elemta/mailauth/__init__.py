"""Does the message tell the truth? SPF, DKIM, ARC, DMARC and the names of addresses."""
