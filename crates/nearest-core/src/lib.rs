//! Every algorithm of `nearest`.
