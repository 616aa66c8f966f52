"""Grid worlds: Dark Room, Key-to-Door, GridNavi, Windy Room, and any of them as images."""
