"""What the report's page shows, gathered as plain values: no HTML, no browser."""
