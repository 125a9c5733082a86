"""How near a result comes to the truth."""
