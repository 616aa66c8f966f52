"""Learning histories from other sources: data sets in foreign formats, and recordings of your own training loop."""
