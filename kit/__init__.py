"""The machinery that no noun touches: it imports nothing but itself and packages."""
