"""What people ask of a running service in their terminal. It is asked over HTTP, as any program asks it."""
