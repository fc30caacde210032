"""The meeting point of Prefect and the pure rooms: one thin task a stage. No mathematics, no SQL, no HTTP here."""
