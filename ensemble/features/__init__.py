"""Features of frozen branches: extracted once, kept, and read by all that comes after."""
