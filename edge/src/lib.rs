//! natterjack-edge
