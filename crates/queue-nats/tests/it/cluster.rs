//! Making and comparing the streams.
