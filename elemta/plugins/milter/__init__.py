"""The milter protocol (version 6) from the mail server's side, as sendmail and Postfix speak it."""
