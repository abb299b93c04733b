"""The speech codec: what is sent of a recording, what that costs, and the bytes it becomes."""
