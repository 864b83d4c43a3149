"""PostgreSQL as the store's engine: asyncpg, in the loop of the server; the store's functions wait in greenlets."""
