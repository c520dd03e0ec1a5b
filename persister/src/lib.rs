//! natterjack-persister
