"""What identity decides: accounts and their codes, marketers and their keys, who may sign in. Pure and synchronous."""
