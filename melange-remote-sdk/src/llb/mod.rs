//! Build graphs in BuildKit's low-level format.
