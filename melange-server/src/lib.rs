//! The build service.
