//! natterjack-nats
