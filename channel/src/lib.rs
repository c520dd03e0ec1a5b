//! natterjack-channel
