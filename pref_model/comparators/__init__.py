"""Other methods of personalization on the same embeddings, behind one interface."""
