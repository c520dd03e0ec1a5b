//! natterjack-client
