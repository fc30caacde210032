"""Where Prefect meets the pure rooms: one thin task a stage. No mathematics, SQL or HTTP here."""
