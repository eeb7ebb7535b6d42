//! The terminal: modes of the console beyond its byte streams.
