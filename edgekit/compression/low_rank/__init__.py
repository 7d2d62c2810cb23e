"""Low-rank factorization of weight matrices."""
