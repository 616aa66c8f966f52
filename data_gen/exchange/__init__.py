"""Learning histories that others have made: data sets in their formats, and anyone's own training loop."""
