"""Adapters beside frozen linear layers, and their Hugging Face PEFT folders."""
