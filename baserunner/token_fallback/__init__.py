"""The node token in use is refused: the others that this device has are tried before it gives up."""
