//! natterjack-tests
