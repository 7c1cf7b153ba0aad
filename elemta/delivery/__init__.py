"""How mail leaves: routes, hosts, sessions, mailboxes, reports."""
