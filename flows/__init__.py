"""The story: one flow a stage chain, and the command line. No arithmetic, no SQL, no HTTP."""
