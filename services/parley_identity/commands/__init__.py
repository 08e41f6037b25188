"""What identity does when asked: one class for each of accounts, sign-in, marketers and introductions."""
