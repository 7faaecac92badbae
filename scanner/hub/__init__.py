"""The Hugging Face Hub: addresses, listing, and reading adapters by ranges."""
