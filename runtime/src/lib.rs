//! natterjack-runtime
