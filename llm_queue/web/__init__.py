"""HTTP in front of the line. Only in here is Quart known."""
