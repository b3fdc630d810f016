"""Text and chats to tokens with their characters, and which tokens of several models pair."""
