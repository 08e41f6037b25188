"""What broker decides, pure and synchronous."""
