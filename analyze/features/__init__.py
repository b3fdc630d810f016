"""What features are about: texts they fire on, tokens they promote, neighbours and mirrors."""
