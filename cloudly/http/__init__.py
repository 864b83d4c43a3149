"""The door: requests become decisions, decisions become answers. No decision is taken here."""
