"""What consent decides, pure and synchronous."""
