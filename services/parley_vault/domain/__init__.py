"""What vault decides, pure and synchronous."""
