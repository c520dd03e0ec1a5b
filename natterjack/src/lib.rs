//! natterjack
