"""What people ask of a running service in their terminal."""
